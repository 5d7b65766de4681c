//! What a file is: by its name, else by its first bytes.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::encoding;

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Plain text, and source code of languages without a grammar here.
    Text,
    /// Markdown.
    Markdown,
    /// HTML.
    Html,
    /// PDF.
    Pdf,
    /// A document of Word.
    Docx,
    /// A workbook of Excel.
    Xlsx,
    /// A table with the delimiter `,`, `;`, tab or `|`, whichever its first rows have.
    Csv,
    /// A table with tabs.
    Tsv,
    /// Source code that is split by its syntax.
    Source(SourceLanguage),
}

/// A language with a grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceLanguage {
    /// Rust.
    Rust,
    /// Python.
    Python,
    /// JavaScript, JSX too.
    JavaScript,
    /// TypeScript.
    TypeScript,
    /// TypeScript with JSX.
    Tsx,
    /// Go.
    Go,
    /// C.
    C,
}

impl Format {
    /// Its name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Markdown => "Markdown",
            Self::Html => "HTML",
            Self::Pdf => "PDF",
            Self::Docx => "DOCX",
            Self::Xlsx => "XLSX",
            Self::Csv => "CSV",
            Self::Tsv => "TSV",
            Self::Source(_) => "source code",
        }
    }

    /// Whether the positions of its chunks are those of the file, in the file's encoding.
    #[must_use]
    pub fn keeps_positions(self) -> bool {
        matches!(self, Self::Text | Self::Markdown | Self::Csv | Self::Tsv | Self::Source(_))
    }

    fn is_text(self) -> bool {
        self.keeps_positions() || self == Self::Html
    }
}

/// How many of a file's first bytes [`format_of`] needs at most.
pub const HEAD_BYTES: usize = 8192;

/// What a file is, by the extension of its name, else by its first [`HEAD_BYTES`] bytes. `None` if it is binary and of no
/// known format.
#[must_use]
pub fn format_of(path: &Path, head: &[u8]) -> Option<Format> {
    let head = &head[..head.len().min(HEAD_BYTES)];
    match format_by_name(path) {
        Some(format) if format.is_text() && encoding::is_binary(head) => by_magic(head),
        Some(format) => Some(format),
        None => by_magic(head),
    }
}

/// What the extension of a name says.
pub(crate) fn format_by_name(path: &Path) -> Option<Format> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    Some(match extension.as_str() {
        "txt" | "text" | "log" | "rst" | "adoc" | "asciidoc" | "org" | "tex" | "srt" | "vtt" => Format::Text,
        "md" | "markdown" | "mdx" | "mkd" | "mdown" => Format::Markdown,
        "html" | "htm" | "xhtml" => Format::Html,
        "pdf" => Format::Pdf,
        "docx" | "docm" => Format::Docx,
        "xlsx" | "xlsm" => Format::Xlsx,
        "csv" => Format::Csv,
        "tsv" | "tab" => Format::Tsv,
        "rs" => Format::Source(SourceLanguage::Rust),
        "py" | "pyi" => Format::Source(SourceLanguage::Python),
        "js" | "mjs" | "cjs" | "jsx" => Format::Source(SourceLanguage::JavaScript),
        "ts" | "mts" | "cts" => Format::Source(SourceLanguage::TypeScript),
        "tsx" => Format::Source(SourceLanguage::Tsx),
        "go" => Format::Source(SourceLanguage::Go),
        "c" | "h" => Format::Source(SourceLanguage::C),
        _ => return None,
    })
}

fn by_magic(head: &[u8]) -> Option<Format> {
    if head.starts_with(b"%PDF-") {
        return Some(Format::Pdf);
    }
    if head.starts_with(b"PK\x03\x04") {
        // The names of the first entries stand uncompressed between their contents.
        return [(&b"word/"[..], Format::Docx), (b"xl/", Format::Xlsx)]
            .into_iter()
            .find(|(name, _)| head.windows(name.len()).any(|window| window == *name))
            .map(|(_, format)| format);
    }
    if encoding::is_binary(head) {
        return None;
    }
    let start: Vec<u8> = head.trim_ascii_start().iter().take(15).map(u8::to_ascii_lowercase).collect();
    if start.starts_with(b"<!doctype html") || start.starts_with(b"<html") {
        return Some(Format::Html);
    }
    Some(Format::Text)
}

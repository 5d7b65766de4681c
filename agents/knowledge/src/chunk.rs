//! A piece of a document with its place, as a citation quotes it.

use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};

/// A piece of a document with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Exactly the extracted text of its range; what a citation quotes.
    pub text: String,
    /// The heading path, or the name of a sheet or a function; outermost first.
    pub context: Vec<String>,
    /// The header row of a table, repeated for every chunk of it.
    pub header: Option<String>,
    /// The range in the file for plain text, Markdown, CSV and source code, in its own encoding; in the extracted text else.
    pub bytes: Range<u64>,
    /// 1-based lines of the file, or of the extracted text; of the extracted page for PDF.
    pub lines: RangeInclusive<u32>,
    /// 1-based; PDF alone.
    pub page: Option<u32>,
}

/// What is embedded and searched by words: context, header and text. What is shown is the text alone.
pub(crate) fn indexed_text(chunk: &Chunk) -> String {
    let mut text = chunk.context.join(" > ");
    for part in [chunk.header.as_deref().unwrap_or(""), &chunk.text] {
        if !text.is_empty() && !part.is_empty() {
            text.push('\n');
        }
        text.push_str(part);
    }
    text
}

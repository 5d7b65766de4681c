//! A chunk, and how large it may be.

use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};

/// How large chunks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkSize {
    /// At most so many tokens in [`DocumentChunk::indexed_text`]; fewer than [`MIN_CHUNK_TOKENS`] count as that.
    pub tokens: u32,
    /// At most so many tokens at the end of a chunk stand at the beginning of the next one too; half of `tokens` at most. Rows of
    /// a table do not overlap, since each says all by its header.
    pub overlap: u32,
}

/// A heading path and a sentence find room in it.
pub const MIN_CHUNK_TOKENS: u32 = 16;

/// A piece of a text, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentChunk {
    /// Exactly the extracted text of its range: what a citation quotes.
    pub text: String,
    /// The headings above its beginning, or the names of the definitions or of the sheet around it; outermost first.
    pub context: Vec<String>,
    /// The header row of its table, if `text` lacks it.
    pub header: Option<String>,
    /// Its bytes: of the file, in its encoding, for plain text, Markdown, CSV, TSV and source code; of the extracted text, in
    /// UTF-8, else.
    pub bytes: Range<u64>,
    /// Its lines from 1: of the file, or of the extracted text; for PDF those of the extracted page.
    pub lines: RangeInclusive<u32>,
    /// Its page from 1, for PDF alone.
    pub page: Option<u32>,
}

/// Between the parts of a path in what is indexed.
const PATH_SEPARATOR: &str = " > ";

impl DocumentChunk {
    /// What is embedded and searched: context, header and text, a line each.
    #[must_use]
    pub fn indexed_text(&self) -> String {
        let mut text = context_line(&self.context);
        if let Some(header) = &self.header {
            text.push_str(header);
            text.push('\n');
        }
        text.push_str(&self.text);
        text
    }
}

/// A context as the first line of what is indexed.
pub(super) fn context_line(context: &[String]) -> String {
    if context.is_empty() { String::new() } else { format!("{}\n", context.join(PATH_SEPARATOR)) }
}

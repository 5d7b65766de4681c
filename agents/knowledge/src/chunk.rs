//! A piece of a document with its place, as a citation quotes it.

use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};

/// A piece of a document with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentChunk {
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

impl DocumentChunk {
    /// What is embedded and searched: context, header and text, a line each. What is shown is the text alone.
    #[must_use]
    pub fn indexed_text(&self) -> String {
        let context = self.context.join(" > ");
        let parts = [context.as_str(), self.header.as_deref().unwrap_or(""), &self.text];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
    }
}

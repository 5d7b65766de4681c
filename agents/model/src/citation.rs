//! What an answer cites.

use serde::{Deserialize, Serialize};

/// A passage that an answer cites, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Citation {
    /// The number by which the answer cites it, from 1: that of the passage in the prompt.
    pub number: u32,
    /// The name of the knowledge.
    pub knowledge: String,
    /// The path of the file, or the name of the text.
    pub source: String,
    /// The page of a PDF, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// The first line, from 1: of the file, or of the extracted text, or of the page.
    pub first_line: u32,
    /// The last line.
    pub last_line: u32,
    /// The headings above it, the outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<String>,
    /// The text of the passage, as the source has it.
    pub quote: String,
}

impl Citation {
    /// What it takes in a message, in bytes, at most.
    pub fn max_encoded_len(&self) -> usize {
        let context: usize = self.context.iter().map(|part| part.len() + TEXT_FRAME_BYTES).sum();
        NUMBERS_BYTES + self.knowledge.len() + self.source.len() + self.quote.len() + context
    }
}

/// The tag and the length of a text.
const TEXT_FRAME_BYTES: usize = 6;
/// The numbers of a citation, with their tags, and those of its texts.
const NUMBERS_BYTES: usize = 64;

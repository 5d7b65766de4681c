//! Where chunks stand.

use std::ops::Range;

use super::document_chunk::DocumentChunk;
use crate::document::{DocumentPart, LoadedDocument};
use crate::offsets::OffsetCursor;

/// Where ranges of the text stand; they come in the order of their beginnings.
pub(super) struct Places<'d> {
    pub(super) text: &'d str,
    file: OffsetCursor<'d>,
    page: Option<u32>,
    /// A position, and the line that it is in.
    at: usize,
    line: u32,
}

impl<'d> Places<'d> {
    pub(super) fn new(document: &'d LoadedDocument) -> Self {
        Self {
            text: &document.text,
            file: OffsetCursor::new(&document.text, &document.offsets),
            page: None,
            at: 0,
            line: 1,
        }
    }

    pub(super) fn begin(&mut self, part: &DocumentPart) {
        self.page = part.page;
        if part.page.is_some() {
            (self.at, self.line) = (part.range.start, 1);
        }
    }

    pub(super) fn chunk(&mut self, range: Range<usize>, context: Vec<String>, header: Option<String>) -> DocumentChunk {
        self.line += line_ends(&self.text[self.at..range.start]);
        self.at = range.start;
        let text = self.text[range.clone()].to_owned();
        let start = self.file.advance(range.start);
        let end = self.file.clone().advance(range.end);
        let lines = self.line..=self.line + line_ends(&text);
        DocumentChunk { text, context, header, bytes: start..end, lines, page: self.page }
    }
}

fn line_ends(text: &str) -> u32 {
    let count = text.bytes().filter(|byte| *byte == b'\n').count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

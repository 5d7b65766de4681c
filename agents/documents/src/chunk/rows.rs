//! Tables: as many whole rows as fit, each chunk with the header.

use std::ops::Range;

use super::budget::ChunkBudget;
use super::document_chunk::{DocumentChunk, context_line};
use super::places::Places;
use super::window;
use crate::document::{DocumentPart, PartKind, RowsPart};

pub(super) fn cut(
    budget: &ChunkBudget<'_>,
    places: &mut Places<'_>,
    part: &DocumentPart,
    rows: &RowsPart,
    chunks: &mut Vec<DocumentChunk>,
) {
    let text = places.text;
    let context = budget.fitted(rows.name.iter().cloned().collect(), budget.quarter());
    let header = rows.header.clone().map(|header| text[header].trim().to_owned()).filter(|header| !header.is_empty());
    // A header that leaves no room for rows is a chunk, so that its names are found at least.
    let (header, long_header) = match header {
        Some(header) if (budget.count)(&header) + 1 > budget.tokens / 2 => (None, rows.header.clone()),
        header => (header, None),
    };
    let header_tokens = header.as_ref().map_or(0, |header| (budget.count)(&format!("{header}\n")));
    let tokens = budget.tokens - header_tokens - (budget.count)(&context_line(&context)).min(budget.quarter());
    let ends = rows.row_starts.iter().skip(1).copied().chain([part.range.end]);
    let rows = rows.row_starts.iter().zip(ends).map(|(start, end)| *start..end);
    let mut packed = Packed { text, tokens, count: budget.count, ranges: Vec::new(), open: None };
    for row in long_header.into_iter().chain(rows) {
        packed.row(row);
    }
    packed.close();
    for range in packed.ranges {
        chunks.push(places.chunk(range, context.clone(), header.clone()));
    }
}

/// Rows in groups that fit.
struct Packed<'t> {
    text: &'t str,
    tokens: usize,
    count: &'t dyn Fn(&str) -> usize,
    ranges: Vec<Range<usize>>,
    open: Option<Range<usize>>,
}

impl Packed<'_> {
    fn row(&mut self, row: Range<usize>) {
        let row = trimmed(self.text, row);
        if row.is_empty() {
            return;
        }
        if let Some(open) = &mut self.open {
            let joined = open.start..row.end;
            if (self.count)(&self.text[joined.clone()]) <= self.tokens {
                *open = joined;
                return;
            }
            self.close();
        }
        if (self.count)(&self.text[row.clone()]) <= self.tokens {
            self.open = Some(row);
        } else {
            let pieces = window::split(&self.text[row.clone()], &PartKind::Text, self.tokens, 0, self.count);
            self.ranges.extend(pieces.into_iter().map(|piece| row.start + piece.start..row.start + piece.end));
        }
    }

    fn close(&mut self) {
        self.ranges.extend(self.open.take());
    }
}

fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let row = &text[range.clone()];
    let start = range.start + (row.len() - row.trim_start().len());
    start..(range.start + row.trim_end().len()).max(start)
}

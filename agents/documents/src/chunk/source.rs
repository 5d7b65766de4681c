//! Source code: definitions stay whole as far as they fit.
//!
//! Neighbouring definitions that fit together are one chunk; one that does not fit is cut at those within it, and else by blank
//! lines and lines. `text-splitter` can cut code at any node, but parses it anew and takes seconds for each megabyte, minutes
//! where a file breaks the grammar; this takes the places of definitions from the one tree that the file was loaded with.

use std::ops::Range;

use super::window;
use crate::document::PartKind;
use crate::outline::OutlineEntry;

/// A text that is longer than so many bytes for each token is not counted to know that it does not fit.
const MAX_TOKEN_BYTES: usize = 32;

/// The ranges of the chunks of a text, in its order.
pub(super) fn split(
    text: &str,
    definitions: &[OutlineEntry],
    tokens: usize,
    overlap: usize,
    count: &dyn Fn(&str) -> usize,
) -> Vec<Range<usize>> {
    let mut cutter = SourceCutter { text, tokens, overlap, count, ranges: Vec::new() };
    cutter.cut(0..text.len(), definitions);
    cutter.ranges
}

struct SourceCutter<'t> {
    text: &'t str,
    tokens: usize,
    overlap: usize,
    count: &'t dyn Fn(&str) -> usize,
    ranges: Vec<Range<usize>>,
}

impl SourceCutter<'_> {
    /// Cuts a range; `within` are the definitions inside it, so the recursion is as deep as those are nested.
    fn cut(&mut self, range: Range<usize>, mut within: &[OutlineEntry]) {
        if within.is_empty() || self.fits(&range) {
            return self.cut_lines(range);
        }
        let (mut start, mut open) = (range.start, range.start..range.start);
        while let Some((definition, rest)) = within.split_first() {
            let inner = rest.iter().take_while(|entry| entry.range.start < definition.range.end).count();
            let end = definition.range.end.min(range.end);
            let above = self.comment_start(start..definition.range.start.max(start));
            self.piece(&mut open, start..above, &[]);
            self.piece(&mut open, above..end, &rest[..inner]);
            start = end;
            within = &rest[inner..];
        }
        self.piece(&mut open, start..range.end, &[]);
        self.cut_lines(open);
    }

    /// Appends a piece to the open chunk, or cuts what is open and begins the next one with it.
    fn piece(&mut self, open: &mut Range<usize>, piece: Range<usize>, within: &[OutlineEntry]) {
        let joined = open.start..piece.end;
        if self.fits(&joined) {
            *open = joined;
            return;
        }
        self.cut_lines(open.clone());
        *open = if self.fits(&piece) {
            piece
        } else {
            let end = piece.end;
            self.cut(piece, within);
            end..end
        };
    }

    /// Where the lines begin that stand directly above a definition: its comment and attributes.
    fn comment_start(&self, gap: Range<usize>) -> usize {
        let blank = self.text[gap.clone()].rmatch_indices('\n').find(|(at, _)| {
            let before = self.text[gap.start..gap.start + at].trim_end_matches([' ', '\t', '\r']);
            before.ends_with('\n')
        });
        blank.map_or(gap.start, |(at, _)| gap.start + at + 1)
    }

    fn cut_lines(&mut self, range: Range<usize>) {
        let found = window::split(&self.text[range.clone()], &PartKind::Text, self.tokens, self.overlap, self.count);
        self.ranges.extend(found.into_iter().map(|found| range.start + found.start..range.start + found.end));
    }

    fn fits(&self, range: &Range<usize>) -> bool {
        range.len() <= self.tokens * MAX_TOKEN_BYTES && (self.count)(&self.text[range.clone()]) <= self.tokens
    }
}

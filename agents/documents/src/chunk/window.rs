//! `text-splitter` over a text of any length.
//!
//! The splitter looks at all that is left of its text for each chunk. So it gets a window of some chunks, and the next window
//! begins where the last chunk of this one began, which its end may have cut short.

use std::ops::Range;

use text_splitter::{ChunkConfig, ChunkSizer, MarkdownSplitter, TextSplitter};

use crate::document::PartKind;

/// No tokenizer makes more of a token, but for runs of one character; a longer text is not counted.
const MAX_TOKEN_BYTES: usize = 32;
/// A window holds some chunks of ordinary text: each of them costs time in proportion to the window, and the last one is cut
/// twice. Plain text, where a line may be a megabyte, is better off with few.
const TEXT_WINDOW_FOR_EACH_TOKEN_BYTES: usize = 32;
/// Blocks of Markdown that a window cuts are parsed as something else, so these windows are wider.
const MARKDOWN_WINDOW_FOR_EACH_TOKEN_BYTES: usize = 64;

/// The ranges of the chunks of a text, in the order of their beginnings.
pub(super) fn split(
    text: &str,
    kind: &PartKind,
    tokens: usize,
    overlap: usize,
    count: &dyn Fn(&str) -> usize,
) -> Vec<Range<usize>> {
    let window_bytes = tokens
        * match kind {
            PartKind::Markdown { .. } => MARKDOWN_WINDOW_FOR_EACH_TOKEN_BYTES,
            PartKind::Text | PartKind::Rows(_) | PartKind::Source { .. } => TEXT_WINDOW_FOR_EACH_TOKEN_BYTES,
        };
    let cutter = Cutter::new(kind, tokens, overlap.min(tokens.saturating_sub(1)), count);
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let end = window_end(text, start, window_bytes);
        let mut found = cutter.cut(&text[start..end]);
        let last = found.pop().map(|last| start + last.start..start + last.end);
        let covered = ranges.last().map_or(0, |range| range.end);
        let found = found.into_iter().map(|range| start + range.start..start + range.end);
        // The first one may say no more than the end of the window before.
        ranges.extend(found.filter(|range| range.end > covered));
        start = match last {
            Some(last) if end < text.len() && last.start > start => last.start,
            Some(last) => {
                if ranges.last().is_none_or(|range| last.end > range.end) {
                    ranges.push(last);
                }
                end
            }
            None => end,
        };
    }
    ranges
}

/// The end of a window: behind a line if there is one in its second half, else behind a character.
fn window_end(text: &str, start: usize, window_bytes: usize) -> usize {
    if text.len() - start <= window_bytes {
        return text.len();
    }
    let mut end = start + window_bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let middle = start + window_bytes / 2;
    text.as_bytes()[middle..end].iter().rposition(|byte| *byte == b'\n').map_or(end, |at| middle + at + 1)
}

/// The splitter of a kind of text.
enum Cutter<'c> {
    Text(TextSplitter<TokenSizer<'c>>),
    Markdown(MarkdownSplitter<TokenSizer<'c>>),
}

impl<'c> Cutter<'c> {
    fn new(kind: &PartKind, tokens: usize, overlap: usize, count: &'c dyn Fn(&str) -> usize) -> Self {
        let config = || {
            let config = ChunkConfig::new(tokens).with_sizer(TokenSizer { max_bytes: tokens * MAX_TOKEN_BYTES, count });
            config.with_overlap(overlap).expect("the overlap is below the size, by its caller")
        };
        match kind {
            PartKind::Markdown { .. } => Self::Markdown(MarkdownSplitter::new(config())),
            PartKind::Text | PartKind::Rows(_) | PartKind::Source { .. } => Self::Text(TextSplitter::new(config())),
        }
    }

    fn cut(&self, text: &str) -> Vec<Range<usize>> {
        let range = |(start, chunk): (usize, &str)| start..start + chunk.len();
        match self {
            Self::Text(splitter) => splitter.chunk_indices(text).map(range).collect(),
            Self::Markdown(splitter) => splitter.chunk_indices(text).map(range).collect(),
        }
    }
}

/// Counts tokens, but not those of a text that is too long in any case.
struct TokenSizer<'c> {
    max_bytes: usize,
    count: &'c dyn Fn(&str) -> usize,
}

impl ChunkSizer for TokenSizer<'_> {
    fn size(&self, chunk: &str) -> usize {
        if chunk.len() > self.max_bytes { chunk.len() } else { (self.count)(chunk) }
    }
}

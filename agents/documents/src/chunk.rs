//! Chunks: pieces of a text that know their place.

mod rows;
mod window;

use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};

use crate::document::{DocumentPart, LoadedDocument, PartKind};
use crate::offsets::OffsetCursor;
use crate::outline::{OutlineCursor, OutlineEntry, TableBody};

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

fn context_line(context: &[String]) -> String {
    if context.is_empty() { String::new() } else { format!("{}\n", context.join(PATH_SEPARATOR)) }
}

/// Cuts a document. `count` says how many tokens a text has.
///
/// Whatever is not blank is in a chunk; of a table, the header row is in the `header` of each. Chunks are in the order of the
/// text.
#[must_use]
pub fn chunk(document: &LoadedDocument, size: ChunkSize, count: &dyn Fn(&str) -> usize) -> Vec<DocumentChunk> {
    let tokens = size.tokens.max(MIN_CHUNK_TOKENS) as usize;
    let budget = ChunkBudget { tokens, overlap: (size.overlap as usize).min(tokens / 2), count };
    let mut places = Places::new(document);
    let mut chunks = Vec::new();
    for part in &document.parts {
        places.begin(part);
        match &part.kind {
            PartKind::Text => cut_prose(&budget, &mut places, part, &[], &[], &mut chunks),
            PartKind::Markdown { sections, tables } => {
                cut_prose(&budget, &mut places, part, sections, tables, &mut chunks);
            }
            PartKind::Source { definitions, .. } => {
                cut_prose(&budget, &mut places, part, definitions, &[], &mut chunks);
            }
            PartKind::Rows(rows) => rows::cut(&budget, &mut places, part, rows, &mut chunks),
        }
    }
    chunks
}

/// What a chunk may hold.
struct ChunkBudget<'c> {
    tokens: usize,
    overlap: usize,
    count: &'c dyn Fn(&str) -> usize,
}

impl ChunkBudget<'_> {
    /// The most that context and header may take, each.
    fn quarter(&self) -> usize {
        self.tokens / 4
    }

    /// The tokens of the largest of these texts that fits in a quarter.
    fn reserve(&self, texts: impl Iterator<Item = String>) -> usize {
        texts.map(|text| (self.count)(&text)).filter(|tokens| *tokens <= self.quarter()).max().unwrap_or(0)
    }

    /// A path without its outermost parts, as far as it fits.
    fn fitted(&self, mut context: Vec<String>, tokens: usize) -> Vec<String> {
        while !context.is_empty() && (self.count)(&context_line(&context)) > tokens {
            context.remove(0);
        }
        context
    }
}

fn cut_prose(
    budget: &ChunkBudget<'_>,
    places: &mut Places<'_>,
    part: &DocumentPart,
    entries: &[OutlineEntry],
    tables: &[TableBody],
    chunks: &mut Vec<DocumentChunk>,
) {
    let mut paths = OutlineCursor::new(entries);
    // Each path as far as it fits, so that a deep one still has its innermost parts.
    let context_tokens = budget.reserve(entries.iter().map(|entry| {
        let path = paths.path(entry.range.start);
        context_line(&budget.fitted(path, budget.quarter()))
    }));
    let header_tokens = budget.reserve(tables.iter().map(|table| format!("{}\n", table.header)));
    let text = &places.text[part.range.clone()];
    let ranges =
        window::split(text, &part.kind, budget.tokens - context_tokens - header_tokens, budget.overlap, budget.count);
    let mut paths = OutlineCursor::new(entries);
    let mut tables = tables.iter().peekable();
    for range in ranges {
        while tables.next_if(|table| table.range.end <= range.start).is_some() {}
        let table = tables.peek().filter(|table| table.range.contains(&range.start));
        let header = table.map(|table| table.header.clone());
        let header = header.filter(|header| (budget.count)(&format!("{header}\n")) <= header_tokens);
        let context = budget.fitted(paths.path(range.start), context_tokens);
        chunks.push(places.chunk(part.range.start + range.start..part.range.start + range.end, context, header));
    }
}

/// Where ranges of the text stand; they come in the order of their beginnings.
struct Places<'d> {
    text: &'d str,
    file: OffsetCursor<'d>,
    page: Option<u32>,
    /// A position, and the line that it is in.
    at: usize,
    line: u32,
}

impl<'d> Places<'d> {
    fn new(document: &'d LoadedDocument) -> Self {
        Self {
            text: &document.text,
            file: OffsetCursor::new(&document.text, &document.offsets),
            page: None,
            at: 0,
            line: 1,
        }
    }

    fn begin(&mut self, part: &DocumentPart) {
        self.page = part.page;
        if part.page.is_some() {
            (self.at, self.line) = (part.range.start, 1);
        }
    }

    fn chunk(&mut self, range: Range<usize>, context: Vec<String>, header: Option<String>) -> DocumentChunk {
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

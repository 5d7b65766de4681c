//! Chunks: pieces of a text that know their place.

mod budget;
mod document_chunk;
mod places;
mod rows;
mod source;
mod window;

pub use document_chunk::{ChunkSize, DocumentChunk, MIN_CHUNK_TOKENS};

use budget::ChunkBudget;
use document_chunk::context_line;
use places::Places;

use crate::document::{DocumentPart, LoadedDocument, PartKind};
use crate::outline::{OutlineCursor, OutlineEntry, TableBody};

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
            PartKind::Source { definitions } => {
                cut_prose(&budget, &mut places, part, definitions, &[], &mut chunks);
            }
            PartKind::Rows(rows) => rows::cut(&budget, &mut places, part, rows, &mut chunks),
        }
    }
    chunks
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
    let tokens = budget.tokens - context_tokens - header_tokens;
    let ranges = match &part.kind {
        PartKind::Source { definitions } => source::split(text, definitions, tokens, budget.overlap, budget.count),
        kind => window::split(text, kind, tokens, budget.overlap, budget.count),
    };
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

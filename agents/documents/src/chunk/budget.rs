//! What a chunk may hold.

use super::document_chunk::context_line;

/// What a chunk may hold.
pub(super) struct ChunkBudget<'c> {
    pub(super) tokens: usize,
    pub(super) overlap: usize,
    pub(super) count: &'c dyn Fn(&str) -> usize,
}

impl ChunkBudget<'_> {
    /// The most that context and header may take, each.
    pub(super) fn quarter(&self) -> usize {
        self.tokens / 4
    }

    /// The tokens of the largest of these texts that fits in a quarter.
    pub(super) fn reserve(&self, texts: impl Iterator<Item = String>) -> usize {
        texts.map(|text| (self.count)(&text)).filter(|tokens| *tokens <= self.quarter()).max().unwrap_or(0)
    }

    /// A path without its outermost parts, as far as it fits.
    pub(super) fn fitted(&self, mut context: Vec<String>, tokens: usize) -> Vec<String> {
        while !context.is_empty() && (self.count)(&context_line(&context)) > tokens {
            context.remove(0);
        }
        context
    }
}

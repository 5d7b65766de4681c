//! The size of a KV cache.

use std::fmt;

/// llama.cpp rounds the KV cells of a sequence up to a multiple of this (its padding of a context's `n_ctx`), so contexts are
/// shortened in such steps.
pub(crate) const KV_PADDING_CELLS: u32 = 256;

/// The size of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Concurrent sequences.
    pub sequences: u32,
    /// The context length of each, in tokens.
    pub context_tokens: u32,
}

impl CacheShape {
    /// Tokens over all sequences.
    pub fn tokens(&self) -> u64 {
        u64::from(self.sequences).saturating_mul(u64::from(self.context_tokens))
    }
}

/// `3 sequences of 4096 tokens`.
impl fmt::Display for CacheShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sequences, context_tokens } = self;
        let noun = if *sequences == 1 { "sequence" } else { "sequences" };
        write!(f, "{sequences} {noun} of {context_tokens} tokens")
    }
}

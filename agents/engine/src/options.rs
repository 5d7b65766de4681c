//! How an engine behaves.

use std::time::Duration;

use crate::draft::Drafts;
use crate::shelf;
use crate::turn::Turn;

/// How an engine behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sequences that may wait for a slot.
    pub queue: usize,
    /// The gap between tokens to aim at while prompts are computed beside running streams.
    pub gap: Duration,
    /// Set for an engine that computes on the same cores as others do.
    pub turn: Option<Turn>,
    /// Bytes of host memory for beginnings of prompts; 0 keeps none.
    pub prefixes: usize,
    /// Where these are kept on disk too, for the next start.
    pub shelf: Option<shelf::Options>,
    /// When tokens are computed because they are likely to come next.
    pub drafts: Drafts,
}

impl Default for Options {
    /// A queue far above what a person starts by hand; a gap at which text still seems to flow; a gibibyte, which is some
    /// seventy prompts of a small model or seven of a large one.
    fn default() -> Self {
        let gap = Duration::from_millis(100);
        Self { queue: 1024, gap, turn: None, prefixes: 1 << 30, shelf: None, drafts: Drafts::default() }
    }
}

//! Settings of an engine.

use std::time::Duration;

use crate::cpu_lease::SharedCpu;
use crate::disk_prefix_cache;
use crate::draft::DraftMode;

/// Settings of an engine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sequences that may wait for a slot.
    pub max_waiting: usize,
    /// The inter-token latency to aim at while prompts are prefilled beside streaming sequences.
    pub target_itl: Duration,
    /// Set for an engine that computes on the same cores as other engines.
    pub shared_cpu: Option<SharedCpu>,
    /// Bytes of host memory for the prefix cache; 0 disables it.
    pub prefix_cache_bytes: usize,
    /// The disk tier of the prefix cache, which outlives the engine.
    pub disk_prefix_cache: Option<disk_prefix_cache::Options>,
    /// When to speculate.
    pub draft_mode: DraftMode,
}

impl Default for Options {
    /// A queue far longer than a person fills by hand; a latency at which text still seems to flow; a gibibyte, which holds some
    /// seventy prefixes of a small model or seven of a large one.
    fn default() -> Self {
        Self {
            max_waiting: 1024,
            target_itl: Duration::from_millis(100),
            shared_cpu: None,
            prefix_cache_bytes: 1 << 30,
            disk_prefix_cache: None,
            draft_mode: DraftMode::default(),
        }
    }
}

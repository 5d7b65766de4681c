//! What an engine counts while it works.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// What an engine has done so far and does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Sequences in slots.
    pub busy: u64,
    /// Sequences that wait for a slot.
    pub queued: u64,
    /// Batches computed.
    pub steps: u64,
    /// Prompt tokens computed.
    pub prompt: u64,
    /// Prompt tokens that were found instead of computed.
    pub shared: u64,
    /// Bytes of host memory that kept beginnings of prompts take.
    pub prefix_bytes: u64,
    /// Tokens generated.
    pub output: u64,
    /// Tokens computed because they were likely to come next.
    pub drafted: u64,
    /// Of these, the ones that came.
    pub accepted: u64,
    /// Sequences that ended well.
    pub finished: u64,
    /// Sequences whose reader went away.
    pub cancelled: u64,
    /// Sequences that failed.
    pub failed: u64,
    /// Nanoseconds in which it computed.
    pub computing: u64,
}

/// The same, as the engine's thread counts it.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) busy: AtomicU64,
    pub(crate) queued: AtomicU64,
    /// Texts to embed that wait or are embedded.
    pub(crate) embeds: AtomicU64,
    pub(crate) steps: AtomicU64,
    pub(crate) prompt: AtomicU64,
    pub(crate) shared: AtomicU64,
    pub(crate) prefix_bytes: AtomicU64,
    pub(crate) output: AtomicU64,
    pub(crate) drafted: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) finished: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) computing: AtomicU64,
}

impl Counters {
    /// Counts a time in which it computed.
    pub(crate) fn computed(&self, took: Duration) {
        self.computing.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn stats(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        Stats {
            busy: get(&self.busy),
            queued: get(&self.queued) + get(&self.embeds),
            steps: get(&self.steps),
            prompt: get(&self.prompt),
            shared: get(&self.shared),
            prefix_bytes: get(&self.prefix_bytes),
            output: get(&self.output),
            drafted: get(&self.drafted),
            accepted: get(&self.accepted),
            finished: get(&self.finished),
            cancelled: get(&self.cancelled),
            failed: get(&self.failed),
            computing: get(&self.computing),
        }
    }
}

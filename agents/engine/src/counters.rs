//! Statistics of an engine.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::heartbeat::HeartbeatRecorder;

/// Statistics of an engine: its current load, and totals since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineStats {
    /// Sequences in slots.
    pub running: u64,
    /// Sequences that wait for a slot.
    pub waiting: u64,
    /// Batches computed.
    pub batches: u64,
    /// Tokens of these batches.
    pub batch_tokens: u64,
    /// Nanoseconds in which it computed these batches.
    pub batch_ns: u64,
    /// Prompt tokens computed.
    pub prefill_tokens: u64,
    /// Prompt tokens taken from a slot or a cache.
    pub cached_tokens: u64,
    /// Bytes of host memory that the prefix cache takes.
    pub prefix_cache_bytes: u64,
    /// Tokens generated.
    pub output_tokens: u64,
    /// Draft tokens computed.
    pub drafted_tokens: u64,
    /// Of these, the ones that were accepted.
    pub accepted_tokens: u64,
    /// Sequences that ended well.
    pub finished: u64,
    /// Sequences whose stream was dropped.
    pub cancelled: u64,
    /// Sequences that failed.
    pub failed: u64,
    /// Nanoseconds in which it computed.
    pub compute_ns: u64,
}

/// The same, as the engine's thread counts them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) running: AtomicU64,
    pub(crate) waiting: AtomicU64,
    /// Requests that wait to be pooled, or are pooled in part.
    pub(crate) pooling_requests: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) batch_tokens: AtomicU64,
    pub(crate) batch_ns: AtomicU64,
    pub(crate) prefill_tokens: AtomicU64,
    pub(crate) cached_tokens: AtomicU64,
    pub(crate) prefix_cache_bytes: AtomicU64,
    pub(crate) output_tokens: AtomicU64,
    pub(crate) drafted_tokens: AtomicU64,
    pub(crate) accepted_tokens: AtomicU64,
    pub(crate) finished: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) compute_ns: AtomicU64,
    pub(crate) heartbeat: HeartbeatRecorder,
}

impl Counters {
    /// Adds a time in which the engine computed.
    pub(crate) fn add_compute_time(&self, took: Duration) {
        self.compute_ns.fetch_add(nanos(took), Relaxed);
    }

    /// Counts a batch of so many tokens, whose time was added already.
    pub(crate) fn add_batch(&self, tokens: usize, took: Duration) {
        self.batches.fetch_add(1, Relaxed);
        self.batch_tokens.fetch_add(tokens as u64, Relaxed);
        self.batch_ns.fetch_add(nanos(took), Relaxed);
    }

    pub(crate) fn stats(&self) -> EngineStats {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        EngineStats {
            running: get(&self.running),
            waiting: get(&self.waiting) + get(&self.pooling_requests),
            batches: get(&self.batches),
            batch_tokens: get(&self.batch_tokens),
            batch_ns: get(&self.batch_ns),
            prefill_tokens: get(&self.prefill_tokens),
            cached_tokens: get(&self.cached_tokens),
            prefix_cache_bytes: get(&self.prefix_cache_bytes),
            output_tokens: get(&self.output_tokens),
            drafted_tokens: get(&self.drafted_tokens),
            accepted_tokens: get(&self.accepted_tokens),
            finished: get(&self.finished),
            cancelled: get(&self.cancelled),
            failed: get(&self.failed),
            compute_ns: get(&self.compute_ns),
        }
    }
}

/// A request that waits to be pooled: counted until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct PendingPooling(Arc<Counters>);

impl PendingPooling {
    /// Counts one more; `None` if so many wait already.
    pub(crate) fn begin(counters: &Arc<Counters>, max: usize) -> Option<Self> {
        let before = counters.pooling_requests.fetch_add(1, Relaxed);
        let pending = Self(counters.clone());
        (before < max as u64).then_some(pending)
    }
}

impl Drop for PendingPooling {
    fn drop(&mut self) {
        self.0.pooling_requests.fetch_sub(1, Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

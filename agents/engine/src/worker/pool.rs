//! Texts that are computed as a whole: one batch of them at a time, so that other work and the callers' ends are noticed between.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::EngineWorker;
use crate::backend::{self, Backend};

impl<B: Backend> EngineWorker<B> {
    /// Computes the next batch of texts, if there are any.
    pub(super) fn pool(&mut self) {
        self.counters.cancelled.fetch_add(self.pooling.drop_abandoned(), Relaxed);
        if self.pooling.is_empty() {
            return;
        }
        let (max_texts, max_tokens) = (self.limits.sequences as usize, self.limits.batch_tokens as usize);
        let batch = self.pooling.next_batch(max_texts, max_tokens, Instant::now());
        let texts = self.pooling.texts(&batch);
        let tokens = texts.iter().map(Vec::len).sum::<usize>();
        let cost_tokens = u32::try_from(tokens).unwrap_or(u32::MAX).max(1);
        let expected = self.pooling_cost.expected(cost_tokens);
        let (computed, took) = self.with_cpu(expected, |backend| backend.pool(&texts));
        if computed.is_ok() {
            self.pooling_cost.observe(cost_tokens, took.as_secs_f64());
            self.counters.add_batch(tokens, took);
            self.counters.prefill_tokens.fetch_add(tokens as u64, Relaxed);
        }
        self.pooling.complete(&batch, computed.map_err(backend::Error::into_failure), &self.counters);
    }
}

//! Spans that wait for the collector.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use artel_metrics::{SpanOutcome, TraceMetrics};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::Notify;

/// Spans that may wait: some seconds of a busy daemon, and some 5 MB.
pub(crate) const MAX_WAITING_SPANS: usize = 4096;
/// Spans of one message: half a megabyte, far below what collectors take.
pub(crate) const BATCH_SPANS: usize = 512;

/// The spans that have ended and are not yet sent. It is bounded: further ones are dropped, and counted. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct SpanQueue(Arc<QueueState>);

#[derive(Debug)]
struct QueueState {
    waiting: Mutex<VecDeque<Span>>,
    is_due: Notify,
    metrics: TraceMetrics,
}

impl SpanQueue {
    pub(crate) fn new(metrics: TraceMetrics) -> Self {
        Self(Arc::new(QueueState { waiting: Mutex::default(), is_due: Notify::new(), metrics }))
    }

    /// Adds a span, or drops it. What waits for a batch is woken once for each, not for each span.
    pub(crate) fn push(&self, span: Span) {
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_WAITING_SPANS {
            drop(waiting);
            return self.0.metrics.spans(SpanOutcome::Dropped, 1);
        }
        waiting.push_back(span);
        let is_due = waiting.len() == BATCH_SPANS;
        drop(waiting);
        if is_due {
            self.0.is_due.notify_one();
        }
    }

    /// The next batch, the oldest first; empty if none waits.
    pub(crate) fn take(&self) -> Vec<Span> {
        let mut waiting = self.waiting();
        let count = waiting.len().min(BATCH_SPANS);
        waiting.drain(..count).collect()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting().len()
    }

    /// Counts what becomes of them.
    pub(crate) fn metrics(&self) -> &TraceMetrics {
        &self.0.metrics
    }

    /// Resolves when a whole batch waits.
    pub(crate) async fn due(&self) {
        self.0.is_due.notified().await;
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Span>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_what_comes_and_counts_it() {
        let queue = SpanQueue::new(TraceMetrics::default());
        for number in 0..MAX_WAITING_SPANS + 3 {
            queue.push(Span { name: number.to_string(), ..Span::default() });
        }
        assert_eq!((queue.len(), queue.metrics().dropped_spans()), (MAX_WAITING_SPANS, 3));
        let batch = queue.take();
        assert_eq!((batch.len(), batch[0].name.as_str()), (BATCH_SPANS, "0"));
        assert_eq!(queue.len(), MAX_WAITING_SPANS - BATCH_SPANS);
    }
}

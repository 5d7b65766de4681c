//! A span that is open, as the parent of others.

use artel_task::{SpanId, TraceContext};

use crate::span::{SpanDraft, SpanParent};
use crate::span_queue::SpanQueue;

/// A span of a trace that is recorded, below which others are told.
#[derive(Debug, Clone)]
pub struct TraceScope {
    pub(crate) queue: SpanQueue,
    pub(crate) place: TraceContext,
}

impl TraceScope {
    /// The scope of another span of the same trace.
    pub(crate) fn of_span(&self, span: SpanId) -> Self {
        Self { queue: self.queue.clone(), place: TraceContext { span, ..self.place.clone() } }
    }

    /// Tells a span below this one.
    pub(crate) fn record(&self, span: SpanId, draft: SpanDraft) {
        let parent = SpanParent { id: self.place.span, is_remote: false };
        let place = TraceContext { span, ..self.place.clone() };
        self.queue.push(draft.at(&place, Some(parent)));
    }
}

//! Decides which calls are traced, and takes the spans.

use artel_metrics::TraceMetrics;
use artel_task::{CallerTrace, TraceContext};

use crate::call_span::CallSpan;
use crate::span::SpanParent;
use crate::span_ids::{random_span, random_trace};
use crate::span_queue::SpanQueue;
use crate::trace_scope::TraceScope;

/// Takes the spans of a daemon. Clones are the same one. Without traces there is none.
#[derive(Debug, Clone)]
pub struct Tracer {
    /// The fraction of traces that begin here and are recorded, from 0 to 1.
    sample: f64,
    queue: SpanQueue,
}

impl Tracer {
    /// A tracer that records this fraction, from 0 to 1, of the traces that begin here; its spans wait until they are
    /// [exported](crate::export).
    pub fn new(sample: f64, metrics: TraceMetrics) -> Self {
        Self { sample, queue: SpanQueue::new(metrics) }
    }

    /// A call of this method begins, such as `artel.v1.Tasks/Submit`. It is traced if its caller's part of the trace is; without
    /// a word of the caller, a call that begins work begins a trace.
    pub fn call(&self, method: &str, caller: Option<CallerTrace>, begins_work: bool) -> Option<CallSpan> {
        let span = random_span();
        let (place, parent) = match caller {
            Some(CallerTrace::Sampled(caller)) => {
                let parent = SpanParent { id: caller.span, is_remote: true };
                (TraceContext { span, ..caller }, Some(parent))
            }
            Some(CallerTrace::Unsampled) => return None,
            None if begins_work && rand::random::<f64>() < self.sample => {
                (TraceContext { trace: random_trace(), span, state: None }, None)
            }
            None => return None,
        };
        Some(CallSpan::begin(self.queue.clone(), method, place, parent))
    }

    /// A span of this tracer as the parent of others, as the calls of [`Self::call`] have it in their [place](CallSpan::place).
    pub fn scope(&self, place: TraceContext) -> TraceScope {
        TraceScope { queue: self.queue.clone(), place }
    }

    pub(crate) fn queue(&self) -> &SpanQueue {
        &self.queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn traced(sample: f64, parent: Option<&str>, begins_work: bool) -> bool {
        let tracer = Tracer::new(sample, TraceMetrics::default());
        let caller = parent.and_then(|parent| CallerTrace::parse(parent, None));
        tracer.call("artel.v1.Tasks/Submit", caller, begins_work).is_some()
    }

    #[test]
    fn the_caller_decides_and_without_its_word_the_fraction_does() {
        let unsampled = format!("{}00", &PARENT[..53]);
        for sample in [0.0, 1.0] {
            assert!(traced(sample, Some(PARENT), false) && traced(sample, Some(PARENT), true));
            assert!(!traced(sample, Some(&unsampled), true));
            assert!(!traced(sample, None, false), "a call that only reads begins no trace");
            assert_eq!(traced(sample, None, true), sample == 1.0);
        }
    }

    #[test]
    fn a_call_is_a_child_of_its_caller_s_span() {
        let tracer = Tracer::new(0.0, TraceMetrics::default());
        let call = tracer.call("artel.v1.Tasks/Submit", CallerTrace::parse(PARENT, Some("a=1")), true).unwrap();
        let place = call.place().clone();
        assert_eq!((place.trace.to_string(), place.state.as_deref()), (PARENT[3..35].to_owned(), Some("a=1")));
        call.end("OK");
        let spans = tracer.queue().take();
        assert_eq!((spans.len(), spans[0].name.as_str()), (1, "artel.v1.Tasks/Submit"));
        assert_eq!(spans[0].parent_span_id, [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        assert_eq!(spans[0].span_id, place.span.as_bytes());
        assert_eq!(spans[0].flags, 0x301, "sampled, and the parent is known to be remote");
    }
}

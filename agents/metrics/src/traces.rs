//! What becomes of spans.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

use crate::family::{LabelName, MetricRegister};
use crate::label::{ByValue, label_values};

label_values! {
    /// What became of a span.
    pub enum SpanOutcome {
        /// The collector has it.
        Exported = "exported",
        /// It was dropped, since as many as may were waiting for the collector.
        Dropped = "dropped",
        /// The collector refused it.
        Refused = "refused",
    }
}

/// The metrics of traces. Clones are the same ones; those of [`Default`] are in no text.
#[derive(Debug, Clone)]
pub struct TraceMetrics(Arc<ByValue<SpanOutcome, Counter>>);

impl Default for TraceMetrics {
    fn default() -> Self {
        Self::new(&mut MetricRegister::new())
    }
}

impl TraceMetrics {
    pub(crate) fn new(register: &mut MetricRegister) -> Self {
        let labels = [LabelName::of::<SpanOutcome>("outcome")];
        let help = "Spans of traces by what became of them; none without `traces` of the settings";
        let spans = register.family("trace_spans", None, help, labels, Counter::default);
        Self(Arc::new(ByValue::new(|outcome| spans.with([&Arc::from(outcome)]))))
    }

    /// So many spans ended like this.
    pub fn spans(&self, outcome: SpanOutcome, count: u64) {
        self.0.of(outcome).inc_by(count);
    }

    /// How many spans ended like this so far.
    pub fn count(&self, outcome: SpanOutcome) -> u64 {
        self.0.of(outcome).get()
    }

    /// How many were dropped so far.
    pub fn dropped_spans(&self) -> u64 {
        self.count(SpanOutcome::Dropped)
    }
}

//! The way of the spans to the collector: in batches, again after a while if it fails, and never at the cost of a task.

use std::time::Duration;

use artel_metrics::SpanOutcome;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::attributes::SpanAttributes;
use crate::delivery_log::DeliveryLog;
use crate::span_ids::random_trace;
use crate::tracer::Tracer;

/// The longest time that a span waits for others: short enough to follow a task, and one message a second costs nothing.
const EXPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time for one message; OpenTelemetry's default.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// The first delay after a failure; it doubles up to the longest one.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The longest delay between two attempts: soon after a collector is back, spans arrive.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

/// Why a message did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It may arrive later: the collector is away, or busy.
    #[error("{0}")]
    Passing(String),
    /// It never will.
    #[error("the collector refuses the spans: {0}")]
    Refused(String),
}

/// Where spans are sent.
pub trait SpanSink: Send {
    /// Sends one message; how many of its spans the collector rejected.
    fn send(&mut self, request: ExportTraceServiceRequest) -> impl Future<Output = Result<u64, SendError>> + Send;
}

/// Sends the spans of a tracer until `closing` is cancelled, and then those that wait. The caller bounds that.
pub async fn export(tracer: Tracer, sink: impl SpanSink, closing: CancellationToken) {
    let mut exporter = Exporter { tracer, sink, closing, resource: resource(), log: DeliveryLog::default() };
    loop {
        let is_closing = tokio::select! {
            biased;
            () = exporter.closing.cancelled() => true,
            () = exporter.tracer.queue().due() => false,
            () = sleep(EXPORT_INTERVAL) => false,
        };
        exporter.deliver_all().await;
        if is_closing {
            return;
        }
    }
}

struct Exporter<S> {
    tracer: Tracer,
    sink: S,
    closing: CancellationToken,
    resource: Resource,
    log: DeliveryLog,
}

impl<S: SpanSink> Exporter<S> {
    async fn deliver_all(&mut self) {
        loop {
            let batch = self.tracer.queue().take();
            if batch.is_empty() {
                return;
            }
            self.deliver(batch).await;
        }
    }

    /// Sends a batch as often as it takes. Meanwhile others wait, and what does not fit beside them is dropped.
    async fn deliver(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let request = message(spans, &self.resource);
        let mut delay = MIN_RETRY_DELAY;
        loop {
            let sent = timeout(SEND_TIMEOUT, self.sink.send(request.clone())).await;
            let sent = sent.unwrap_or_else(|_| Err(SendError::Passing(format!("no answer within {SEND_TIMEOUT:?}"))));
            match &sent {
                Ok(rejected) => return self.delivered(count, *rejected),
                Err(SendError::Refused(_)) => self.ended(SpanOutcome::Refused, count),
                // There is no later any more.
                Err(SendError::Passing(_)) if self.closing.is_cancelled() => self.ended(SpanOutcome::Dropped, count),
                Err(SendError::Passing(_)) => {}
            }
            let Err(error) = sent else { return };
            let queue = self.tracer.queue();
            self.log.failed(&error.to_string(), queue.len(), queue.metrics().dropped_spans());
            if matches!(error, SendError::Refused(_)) || self.closing.is_cancelled() {
                return;
            }
            tokio::select! {
                () = sleep(delay) => {}
                () = self.closing.cancelled() => {}
            }
            delay = (delay * 2).min(MAX_RETRY_DELAY);
        }
    }

    fn delivered(&mut self, count: u64, rejected: u64) {
        let rejected = rejected.min(count);
        self.ended(SpanOutcome::Refused, rejected);
        self.ended(SpanOutcome::Exported, count - rejected);
        self.log.delivered(self.tracer.queue().metrics().dropped_spans());
    }

    fn ended(&self, outcome: SpanOutcome, count: u64) {
        self.tracer.queue().metrics().spans(outcome, count);
    }
}

/// What the spans come from: this process of the daemon.
fn resource() -> Resource {
    let attributes = SpanAttributes::default()
        .text("service.name", "artel")
        .text("service.version", env!("CARGO_PKG_VERSION"))
        .text("service.instance.id", random_trace().to_string());
    Resource { attributes: attributes.into_key_values(), ..Resource::default() }
}

fn message(spans: Vec<Span>, resource: &Resource) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let spans = ResourceSpans { resource: Some(resource.clone()), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![spans] }
}

#[cfg(test)]
mod tests {
    use artel_metrics::TraceMetrics;
    use tokio::sync::mpsc;

    use super::*;
    use crate::span_queue::{BATCH_SPANS, MAX_WAITING_SPANS};

    /// A collector that answers in this order, and then takes everything; it tells how many spans each message has.
    struct ScriptedSink {
        answers: Vec<Result<u64, SendError>>,
        messages: mpsc::UnboundedSender<usize>,
    }

    impl SpanSink for ScriptedSink {
        async fn send(&mut self, request: ExportTraceServiceRequest) -> Result<u64, SendError> {
            self.messages.send(request.resource_spans[0].scope_spans[0].spans.len()).unwrap();
            if self.answers.is_empty() { Ok(0) } else { self.answers.remove(0) }
        }
    }

    /// A collector that never answers.
    struct HungSink;

    impl SpanSink for HungSink {
        async fn send(&mut self, _: ExportTraceServiceRequest) -> Result<u64, SendError> {
            std::future::pending().await
        }
    }

    fn fill(tracer: &Tracer, spans: usize) {
        (0..spans).for_each(|_| tracer.queue().push(Span::default()));
    }

    fn passing() -> Result<u64, SendError> {
        Err(SendError::Passing("away".to_owned()))
    }

    struct Export {
        tracer: Tracer,
        metrics: TraceMetrics,
        messages: mpsc::UnboundedReceiver<usize>,
        closing: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    fn exporting(answers: Vec<Result<u64, SendError>>, spans: usize) -> Export {
        let metrics = TraceMetrics::default();
        let (tracer, closing) = (Tracer::new(1.0, metrics.clone()), CancellationToken::new());
        let (sender, messages) = mpsc::unbounded_channel();
        fill(&tracer, spans);
        let task = tokio::spawn(export(tracer.clone(), ScriptedSink { answers, messages: sender }, closing.clone()));
        Export { tracer, metrics, messages, closing, task }
    }

    fn counts(metrics: &TraceMetrics) -> [u64; 3] {
        [SpanOutcome::Exported, SpanOutcome::Dropped, SpanOutcome::Refused].map(|outcome| metrics.count(outcome))
    }

    #[tokio::test(start_paused = true)]
    async fn spans_are_sent_in_batches_and_again_after_a_passing_failure() {
        let mut export = exporting(vec![passing(), passing(), Ok(0), Ok(2)], BATCH_SPANS + 5);
        for expected in [BATCH_SPANS, BATCH_SPANS, BATCH_SPANS, 5] {
            assert_eq!(export.messages.recv().await, Some(expected));
        }
        fill(&export.tracer, 1);
        assert_eq!(export.messages.recv().await, Some(1));
        export.closing.cancel();
        export.task.await.unwrap();
        assert_eq!(counts(&export.metrics), [BATCH_SPANS as u64 + 3 + 1, 0, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_collector_refuses_is_not_sent_again() {
        let mut export = exporting(vec![Err(SendError::Refused("UNAUTHENTICATED".to_owned()))], 2);
        assert_eq!(export.messages.recv().await, Some(2));
        fill(&export.tracer, 1);
        assert_eq!(export.messages.recv().await, Some(1));
        export.closing.cancel();
        export.task.await.unwrap();
        assert_eq!(counts(&export.metrics), [1, 0, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_spans_are_sent_at_the_end_or_dropped_at_the_first_failure() {
        let mut export = exporting(Vec::new(), 0);
        fill(&export.tracer, 3);
        export.closing.cancel();
        export.task.await.unwrap();
        assert_eq!((export.messages.recv().await, counts(&export.metrics)), (Some(3), [3, 0, 0]));
        let export = exporting(vec![passing(), passing()], BATCH_SPANS + 1);
        export.closing.cancel();
        export.task.await.unwrap();
        assert_eq!(counts(&export.metrics), [0, BATCH_SPANS as u64 + 1, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_hangs_costs_spans_alone() {
        let metrics = TraceMetrics::default();
        let (tracer, closing) = (Tracer::new(1.0, metrics.clone()), CancellationToken::new());
        let task = tokio::spawn(export(tracer.clone(), HungSink, closing.clone()));
        for _ in 0..3 {
            fill(&tracer, MAX_WAITING_SPANS);
            sleep(SEND_TIMEOUT).await;
        }
        assert!(metrics.dropped_spans() >= MAX_WAITING_SPANS as u64, "{}", metrics.dropped_spans());
        assert!(tracer.queue().len() <= MAX_WAITING_SPANS);
        closing.cancel();
        // The daemon waits for the last spans no longer than this.
        assert!(timeout(Duration::from_secs(1), task).await.is_err());
    }
}

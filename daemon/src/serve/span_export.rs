//! The task that sends spans to the collector, while the daemon runs and for a moment at its end.

use std::time::Duration;

use anyhow::{Context as _, Result};
use artel_metrics::TraceMetrics;
use artel_traces::{Tracer, export};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::trace_config::TraceConfig;

/// Time for the last spans: the collector may be away, or hang.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The export of spans.
pub(super) struct SpanExport {
    pub(super) tracer: Tracer,
    closing: CancellationToken,
    task: JoinHandle<()>,
}

impl SpanExport {
    /// Starts it; `None` without traces.
    pub(super) fn start(config: &TraceConfig, metrics: TraceMetrics) -> Result<Option<Self>> {
        let Some(collector) = config.open().transpose().context("failed to start the traces")? else { return Ok(None) };
        tracing::info!(traces = %config, "spans are sent to a collector");
        let (tracer, closing) = (Tracer::new(config.sample, metrics), CancellationToken::new());
        let task = tokio::spawn(export(tracer.clone(), collector, closing.clone()));
        Ok(Some(Self { tracer, closing, task }))
    }

    /// Sends what waits, within a time; whether that was everything.
    pub(super) async fn close(self) -> bool {
        let Self { closing, mut task, .. } = self;
        closing.cancel();
        let has_ended = tokio::time::timeout(CLOSE_TIMEOUT, &mut task).await.is_ok();
        task.abort();
        has_ended
    }
}

//! The span of a request to an engine.

use std::time::SystemTime;

use artel_task::event::FailureCode;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::attributes::SpanAttributes;
use crate::span::SpanDraft;
use crate::span_ids::random_span;
use crate::trace_scope::TraceScope;

/// The error of a request whose result nothing waits for any more: its step was cancelled, or took too long.
const ABANDONED: &str = "abandoned";

/// A request to an engine that runs. Dropped without an end, it was abandoned.
#[derive(Debug)]
pub struct RequestSpan {
    scope: TraceScope,
    name: String,
    start: SystemTime,
    attributes: SpanAttributes,
    error: Option<String>,
}

impl RequestSpan {
    /// A request begins below this span: what it does, such as `chat`, with which model.
    pub fn begin(scope: &TraceScope, operation: &'static str, model: &str) -> Self {
        Self {
            scope: scope.clone(),
            name: format!("{operation} {model}"),
            start: SystemTime::now(),
            attributes: SpanAttributes::of_operation(operation).text("gen_ai.request.model", model),
            error: Some(ABANDONED.to_owned()),
        }
    }

    /// With what else is known of the request.
    #[must_use]
    pub fn with(mut self, more: SpanAttributes) -> Self {
        self.attributes = std::mem::take(&mut self.attributes).and(more);
        self
    }

    /// The engine has answered, and reports this.
    pub fn finish(self, report: SpanAttributes) {
        let mut span = self.with(report);
        span.error = None;
    }

    /// It failed.
    pub fn fail(mut self, code: FailureCode) {
        self.error = Some(failure_name(code));
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        let draft = SpanDraft {
            name: std::mem::take(&mut self.name),
            kind: SpanKind::Client,
            start: self.start,
            end: SystemTime::now(),
            attributes: std::mem::take(&mut self.attributes),
            error: self.error.take(),
        };
        self.scope.record(random_span(), draft);
    }
}

/// The name of a failure's code, as it is journalled.
pub fn failure_name(code: FailureCode) -> String {
    let name = serde_json::to_value(code).ok();
    name.as_ref().and_then(serde_json::Value::as_str).unwrap_or("_OTHER").to_owned()
}

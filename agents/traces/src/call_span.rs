//! The span of a call of a client.

use std::time::SystemTime;

use artel_task::TraceContext;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::attributes::SpanAttributes;
use crate::span::{SpanDraft, SpanParent};
use crate::span_queue::SpanQueue;

/// The codes that are errors of a server, by the semantic conventions; the others are those of its client.
const SERVER_ERRORS: [&str; 6] =
    ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];

/// A call of gRPC, or a request over HTTP, that is being answered. Nothing is told of one that is dropped without an end.
#[derive(Debug)]
pub struct CallSpan {
    queue: SpanQueue,
    method: String,
    place: TraceContext,
    parent: Option<SpanParent>,
    start: SystemTime,
}

impl CallSpan {
    pub(crate) fn begin(queue: SpanQueue, method: &str, place: TraceContext, parent: Option<SpanParent>) -> Self {
        Self { queue, method: method.to_owned(), place, parent, start: SystemTime::now() }
    }

    /// The span as the parent of what the call begins.
    pub fn place(&self) -> &TraceContext {
        &self.place
    }

    /// A request over HTTP for this route was answered with this status, to its end. Its method is that of HTTP and the route.
    pub fn end_http(self, route: &str, status: u16) {
        let method = self.method.split(' ').next().unwrap_or_default().to_owned();
        let attributes = SpanAttributes::default()
            .text("http.request.method", method.as_str())
            .text("http.route", route)
            .integer("http.response.status_code", status);
        self.push(attributes, (status >= 500).then(|| status.to_string()));
    }

    /// The call was answered with this code, such as `NOT_FOUND`, to its end.
    pub fn end(self, code: &str) {
        let attributes = SpanAttributes::default()
            .text("rpc.system.name", "grpc")
            .text("rpc.method", self.method.as_str())
            .text("rpc.response.status_code", code);
        self.push(attributes, SERVER_ERRORS.contains(&code).then(|| code.to_owned()));
    }

    fn push(self, attributes: SpanAttributes, error: Option<String>) {
        let draft = SpanDraft {
            name: self.method,
            kind: SpanKind::Server,
            start: self.start,
            end: SystemTime::now(),
            attributes,
            error,
        };
        self.queue.push(draft.at(&self.place, self.parent));
    }
}

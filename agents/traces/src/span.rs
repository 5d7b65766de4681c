//! A span that has ended, in OTLP's message.

use std::time::{SystemTime, UNIX_EPOCH};

use artel_task::{SpanId, TraceContext};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, SpanFlags, Status};

use crate::attributes::SpanAttributes;

/// The flag of a span whose trace is recorded.
const SAMPLED_MODE: u32 = 1;

/// What is said of a span beside its place in the trace.
#[derive(Debug)]
pub(crate) struct SpanDraft {
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) start: SystemTime,
    pub(crate) end: SystemTime,
    pub(crate) attributes: SpanAttributes,
    /// The kind of the error that it ended with.
    pub(crate) error: Option<String>,
}

/// The parent of a span.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpanParent {
    pub(crate) id: SpanId,
    /// Whether it is a span of the caller.
    pub(crate) is_remote: bool,
}

impl SpanDraft {
    /// The span of this place, below this parent.
    pub(crate) fn at(self, place: &TraceContext, parent: Option<SpanParent>) -> Span {
        let Self { name, kind, start, end, attributes, error } = self;
        let remote =
            if parent.is_some_and(|parent| parent.is_remote) { SpanFlags::ContextIsRemoteMask as u32 } else { 0 };
        let (code, attributes) = match error {
            Some(error) => (StatusCode::Error, attributes.text("error.type", error)),
            None => (StatusCode::Unset, attributes),
        };
        Span {
            trace_id: place.trace.as_bytes().to_vec(),
            span_id: place.span.as_bytes().to_vec(),
            trace_state: place.state.clone().unwrap_or_default(),
            parent_span_id: parent.map(|parent| parent.id.as_bytes().to_vec()).unwrap_or_default(),
            flags: SAMPLED_MODE | SpanFlags::ContextHasIsRemoteMask as u32 | remote,
            name,
            kind: kind.into(),
            start_time_unix_nano: nanoseconds(start),
            end_time_unix_nano: nanoseconds(end.max(start)),
            attributes: attributes.into_key_values(),
            status: Some(Status { code: code.into(), ..Status::default() }),
            ..Span::default()
        }
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

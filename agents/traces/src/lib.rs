//! Traces: what becomes of a call, as spans for a collector that speaks OTLP.
//!
//! A call of a client begins a [`CallSpan`], as a child of the span that the caller names. The task that it submits keeps the
//! span's context in its journal. A [`TaskTracer`] makes the spans of the task and its steps from the events of the task, as they
//! are committed: a task may outlive the process in which it began, so nothing of a span is held in memory that the journal does
//! not have, and the ids of its spans follow from its own id. A request to an engine is a [`RequestSpan`], which the daemon
//! measures around it and fills with what the engine reports; engines export nothing themselves.
//!
//! Spans that have ended wait in a bounded queue of a [`Tracer`], from which [`export`] hands them in batches to a [`SpanSink`].
//! A collector that is slow or gone costs spans, and never time of a task. Names and numbers are told, and never the text of a
//! prompt, an answer or a failure: it would escape an erase. The names follow the semantic conventions of OpenTelemetry.
//!
//! It does not know how spans are sent, settings, engines, or actors.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attributes;
mod call_span;
mod delivery_log;
mod exporter;
mod request_span;
mod span;
mod span_ids;
mod span_queue;
mod step_work;
mod task_tracer;
mod trace_scope;
mod tracer;

pub use attributes::SpanAttributes;
pub use call_span::CallSpan;
pub use exporter::{SendError, SpanSink, export};
pub use request_span::{RequestSpan, failure_name};
pub use task_tracer::TaskTracer;
pub use trace_scope::TraceScope;
pub use tracer::Tracer;

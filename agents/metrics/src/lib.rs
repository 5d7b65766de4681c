//! What the daemon counts and measures, and its text for Prometheus.
//!
//! [`Metrics`] is created once for each runtime and passed to what measures; nothing here is global. Numbers flow in through
//! handles that are resolved once, for a role or a model, and the text flows out in OpenMetrics form. What a task does is
//! taken from its committed events by a [`TaskObserver`], so that each event counts once, and none that is read again at a
//! start. What engines and devices do is sampled when the text is asked for.
//!
//! The names follow the rules of Prometheus: prefix `artel_`, base units, `_total` for what only grows. The values of each
//! label are bounded: beyond the bound they are `other`, so that no client and no catalog makes the text grow without end.
//!
//! It does not know how anything is measured, nor HTTP, gRPC, llama.cpp or the daemon.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod callers;
mod calls;
mod connections;
mod devices;
mod engines;
mod family;
mod histogram;
mod http;
mod journal;
mod label;
mod metrics;
mod model;
mod role;
mod router;
mod task_observer;
mod tasks;
mod traces;

pub use callers::{CallerMetrics, MAX_CALLER_VALUES};
pub use calls::{CallMetrics, CallTimer, MAX_METHOD_VALUES, MAX_REFUSAL_VALUES};
pub use connections::ConnectionMetrics;
pub use devices::{DeviceMetrics, DeviceSample, MAX_DEVICE_VALUES};
pub use engines::{EngineMetrics, EnginePhase, EngineSample, EngineTotals, MAX_MODEL_VALUES};
pub use family::{LabelName, MetricDescription, MetricKind};
pub use histogram::{AtomicHistogram, LocalHistogram};
pub use http::{HttpMetrics, HttpTimer};
pub use journal::JournalMetrics;
pub use label::OTHER;
pub use metrics::{CONTENT_TYPE, Metrics, ScrapeSample};
pub use model::{EngineEnd, LoadOutcome, ModelMetrics};
pub use role::{GaugeGuard, MAX_ROLE_VALUES, RoleMetrics, StepStage};
pub use router::RouterMetrics;
pub use task_observer::TaskObserver;
pub use tasks::{TaskCounts, TaskMetrics};
pub use traces::{SpanOutcome, TraceMetrics};

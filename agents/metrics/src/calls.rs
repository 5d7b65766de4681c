//! Calls of clients, and those that were refused.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;

use crate::family::{LabelName, MetricFamily, MetricRegister};
use crate::histogram::AtomicHistogram;
use crate::label::{LabelBound, OTHER};
use crate::role::GaugeGuard;

/// Methods with figures of their own: those that the edge declares.
pub const MAX_METHOD_VALUES: usize = 200;
/// Reasons of refusals: those of the contract, and a few of HTTP.
pub const MAX_REFUSAL_VALUES: usize = 64;
/// Codes of answers: those of gRPC are 17.
const MAX_CODE_VALUES: usize = 32;

/// Upper bounds for calls, in seconds: from an answer out of memory to a stream that watches for an hour.
pub(crate) const CALL_BOUNDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0];

/// The metrics of calls.
#[derive(Debug)]
pub struct CallMetrics {
    declared: OnceLock<HashSet<Arc<str>>>,
    codes: LabelBound,
    reasons: LabelBound,
    open: Gauge,
    ended: MetricFamily<Counter, 2>,
    seconds: MetricFamily<AtomicHistogram, 1>,
    refused: MetricFamily<Counter, 1>,
}

impl CallMetrics {
    pub(crate) fn new(register: &mut MetricRegister) -> Self {
        let (method, code) = (LabelName::of_names("method"), LabelName::of_names("code"));
        let reason = LabelName::of_names("reason");
        Self {
            declared: OnceLock::new(),
            codes: LabelBound::new(MAX_CODE_VALUES),
            reasons: LabelBound::new(MAX_REFUSAL_VALUES),
            open: register.single(
                "grpc_calls_open",
                None,
                "Calls without an end yet, streams included",
                Gauge::default(),
            ),
            ended: register.family("grpc_calls", None, "Calls that ended", [method, code], Counter::default),
            seconds: register.family(
                "grpc_call",
                Some(Unit::Seconds),
                "Time of calls from their headers to the end of their answer; that of a stream is long",
                [method],
                || AtomicHistogram::new(CALL_BOUNDS),
            ),
            refused: register.family(
                "calls_refused",
                None,
                "Calls refused for what they are, not for what they ask: a limit, a missing token or a missing right",
                [reason],
                Counter::default,
            ),
        }
    }

    /// The methods that have figures of their own, once; all others are [`OTHER`], so that no client makes up new ones.
    pub fn declare<'a>(&self, methods: impl IntoIterator<Item = &'a str>) {
        let _ = self.declared.set(methods.into_iter().take(MAX_METHOD_VALUES).map(Arc::from).collect());
    }

    /// A call begins.
    pub fn begin(&self, method: &str) -> CallTimer {
        let declared = self.declared.get().and_then(|declared| declared.get(method));
        CallTimer {
            method: declared.cloned().unwrap_or_else(|| OTHER.into()),
            start: Instant::now(),
            _open: GaugeGuard::new(&self.open),
        }
    }

    /// A call was answered with this code, such as `NOT_FOUND`, to its end.
    pub fn ended(&self, call: &CallTimer, code: &str) {
        self.ended.with([&call.method, &self.codes.value(code)]).inc();
        self.seconds.with([&call.method]).observe_time(call.start.elapsed());
    }

    /// A call or a request was refused for this reason, such as `TOO_MANY_TASKS`.
    pub fn refused(&self, reason: &str) {
        self.refused.with([&self.reasons.value(reason)]).inc();
    }
}

/// A call that is open until this is dropped.
#[derive(Debug)]
pub struct CallTimer {
    method: Arc<str>,
    start: Instant,
    _open: GaugeGuard,
}

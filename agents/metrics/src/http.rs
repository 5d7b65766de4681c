//! Requests over plain HTTP: those of the pages and of the OpenAI-compatible front.

use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;

use crate::calls::CALL_BOUNDS;
use crate::family::{LabelName, MetricFamily, MetricRegister};
use crate::histogram::AtomicHistogram;
use crate::label::LabelBound;
use crate::role::GaugeGuard;

/// Routes: those of a table in the program, which no client makes longer.
const MAX_ROUTE_VALUES: usize = 64;
/// Codes of answers in use, of some sixty that there are.
const MAX_STATUS_VALUES: usize = 64;

/// The metrics of requests over plain HTTP.
#[derive(Debug)]
pub struct HttpMetrics {
    routes: LabelBound,
    codes: LabelBound,
    open: Gauge,
    ended: MetricFamily<Counter, 2>,
    seconds: MetricFamily<AtomicHistogram, 1>,
}

impl HttpMetrics {
    pub(crate) fn new(register: &mut MetricRegister) -> Self {
        let (route, code) = (LabelName::of_names("route"), LabelName::of_names("code"));
        let open = "Requests over plain HTTP without an end yet, streams included";
        let seconds =
            "Time of requests over plain HTTP from their headers to the end of their answer; that of a stream is long";
        Self {
            routes: LabelBound::new(MAX_ROUTE_VALUES),
            codes: LabelBound::new(MAX_STATUS_VALUES),
            open: register.single("http_requests_open", None, open, Gauge::default()),
            ended: register.family(
                "http_requests",
                None,
                "Requests over plain HTTP that ended; code 499 if the client went away first",
                [route, code],
                Counter::default,
            ),
            seconds: register
                .family("http_request", Some(Unit::Seconds), seconds, [route], || AtomicHistogram::new(CALL_BOUNDS)),
        }
    }

    /// A request for a route begins.
    pub fn begin(&self, route: &'static str) -> HttpTimer {
        HttpTimer { route, start: Instant::now(), _open: GaugeGuard::new(&self.open) }
    }

    /// A request was answered with this code, to its end.
    pub fn ended(&self, request: &HttpTimer, code: u16) {
        let route = self.routes.value(request.route);
        self.ended.with([&route, &self.codes.value(&code.to_string())]).inc();
        self.seconds.with([&route]).observe_time(request.start.elapsed());
    }
}

/// A request that is open until this is dropped.
#[derive(Debug)]
pub struct HttpTimer {
    route: &'static str,
    start: Instant,
    _open: GaugeGuard,
}

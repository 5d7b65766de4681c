//! Connections of clients.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::family::MetricRegister;
use crate::role::GaugeGuard;

/// The metrics of connections. Clones are the same ones; those of [`Default`] are in no text.
#[derive(Debug, Clone)]
pub struct ConnectionMetrics {
    open: Gauge,
    accepted: Counter,
    refused: Counter,
    evicted: Counter,
}

impl Default for ConnectionMetrics {
    fn default() -> Self {
        Self::new(&mut MetricRegister::new())
    }
}

impl ConnectionMetrics {
    pub(crate) fn new(register: &mut MetricRegister) -> Self {
        let mut count = |name, help| register.single(name, None, help, Counter::default());
        let accepted = count("connections_accepted", "Connections accepted");
        let refused =
            count("connections_refused", "Connections refused, since as many as allowed were open and in use");
        let evicted = count("connections_evicted", "Idle connections closed to make room for others");
        let open = register.single("connections_open", None, "Connections that are open", Gauge::default());
        Self { open, accepted, refused, evicted }
    }

    /// A connection was accepted. It is open until the result is dropped.
    pub fn accepted(&self) -> GaugeGuard {
        self.accepted.inc();
        GaugeGuard::new(&self.open)
    }

    /// A connection was refused.
    pub fn refused(&self) {
        self.refused.inc();
    }

    /// An idle connection was closed for another one.
    pub fn evicted(&self) {
        self.evicted.inc();
    }
}

//! What routers decide.

use artel_task::event::Decision;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Unit;

use crate::family::{LabelName, MetricRegister};
use crate::histogram::AtomicHistogram;
use crate::label::{ByValue, label_values};

/// Upper bounds for decisions, in seconds: from one embedding on a GPU to a label model that is loaded first.
const DECISION_BOUNDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

label_values! {
    /// What a router decided.
    enum DecisionOutcome {
        /// A candidate.
        Chosen = "chosen",
        /// No candidate reached the threshold.
        Otherwise = "otherwise",
    }
}

/// The metrics of decisions.
#[derive(Debug)]
pub struct RouterMetrics {
    decisions: ByValue<DecisionOutcome, Counter>,
    seconds: AtomicHistogram,
}

impl RouterMetrics {
    pub(crate) fn new(register: &mut MetricRegister) -> Self {
        let outcome = LabelName::of::<DecisionOutcome>("outcome");
        let help = "Decisions of routers, those on the graph of a task included";
        let decisions = register.family("router_decisions", None, help, [outcome], Counter::default);
        Self {
            decisions: ByValue::new(|value| decisions.with([&value.into()])),
            seconds: register.single(
                "router_decision",
                Some(Unit::Seconds),
                "Time that decisions of routers took",
                AtomicHistogram::new(DECISION_BOUNDS),
            ),
        }
    }

    pub(crate) fn decided(&self, decision: &Decision) {
        let outcome = if decision.otherwise { DecisionOutcome::Otherwise } else { DecisionOutcome::Chosen };
        self.decisions.of(outcome).inc();
        self.seconds.observe_time(decision.elapsed);
    }
}

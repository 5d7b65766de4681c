//! The life of a model's engine: loads and ends.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Unit;

use crate::family::{LabelName, MetricFamily, MetricRegister};
use crate::histogram::AtomicHistogram;
use crate::label::{ByValue, LabelBound, label_values};

/// The label of models: the id of an engine, which is its model's name unless several versions of it are in use.
pub(crate) const MODEL: LabelName = LabelName::of_names("model");

/// Upper bounds for loads, in seconds: from a small model in the page cache to a large one from a network disk.
const LOAD_BOUNDS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0];

label_values! {
    /// What became of a load.
    pub enum LoadOutcome {
        /// The engine is ready.
        Loaded = "loaded",
        /// It could not be loaded.
        Failed = "failed",
        /// There was no place for it.
        Unplaced = "unplaced",
    }
}

label_values! {
    /// Why an engine ended that was ready.
    pub enum EngineEnd {
        /// Its memory was needed for another model.
        Evicted = "evicted",
        /// Nothing used it for as long as its model is kept.
        Idle = "idle",
        /// A client asked for it.
        Requested = "requested",
        /// Its process exited by itself, or was killed from outside.
        Exited = "exited",
        /// It hung, and the daemon killed it.
        Hung = "hung",
        /// Its steps failed again and again, and the daemon ended it.
        Failing = "failing",
    }
}

/// The metrics of one engine, resolved once by its host.
#[derive(Debug)]
pub struct ModelMetrics {
    loads: ByValue<LoadOutcome, Counter>,
    load_seconds: AtomicHistogram,
    ends: ByValue<EngineEnd, Counter>,
}

impl ModelMetrics {
    /// The engine is ready, after this time.
    pub fn loaded(&self, took: Duration) {
        self.loads.of(LoadOutcome::Loaded).inc();
        self.load_seconds.observe_time(took);
    }

    /// It could not be loaded.
    pub fn load_failed(&self, outcome: LoadOutcome) {
        self.loads.of(outcome).inc();
    }

    /// It ended.
    pub fn ended(&self, end: EngineEnd) {
        self.ends.of(end).inc();
    }
}

/// The metrics of all engines' lives.
#[derive(Debug)]
pub(crate) struct ModelFamilies {
    models: RwLock<HashMap<Arc<str>, Arc<ModelMetrics>>>,
    loads: MetricFamily<Counter, 2>,
    load_seconds: MetricFamily<AtomicHistogram, 1>,
    ends: MetricFamily<Counter, 2>,
}

impl ModelFamilies {
    pub(crate) fn new(register: &mut MetricRegister) -> Self {
        let outcome = LabelName::of::<LoadOutcome>("outcome");
        let reason = LabelName::of::<EngineEnd>("reason");
        Self {
            models: RwLock::default(),
            loads: register.family(
                "engine_loads",
                None,
                "Loads of engines that ended",
                [MODEL, outcome],
                Counter::default,
            ),
            load_seconds: register.family(
                "engine_load",
                Some(Unit::Seconds),
                "Time that engines took until they were ready",
                [MODEL],
                || AtomicHistogram::new(LOAD_BOUNDS),
            ),
            ends: register.family(
                "engine_ends",
                None,
                "Ends of engines that were ready",
                [MODEL, reason],
                Counter::default,
            ),
        }
    }

    pub(crate) fn model(&self, bound: &LabelBound, id: &str) -> Arc<ModelMetrics> {
        let model = bound.value(id);
        let mut models = self.models.write().expect("nothing panics while it holds the metrics of models");
        let resolve = || {
            Arc::new(ModelMetrics {
                loads: ByValue::new(|outcome| self.loads.with([&model, &outcome.into()])),
                load_seconds: self.load_seconds.with([&model]),
                ends: ByValue::new(|end| self.ends.with([&model, &end.into()])),
            })
        };
        models.entry(model.clone()).or_insert_with(resolve).clone()
    }
}

//! Engines, as a sample of them shows: their states, their load, and what they have computed.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;

use crate::family::{LabelName, MetricFamily, MetricRegister};
use crate::label::{LabelBound, LabelValues as _, label_values};
use crate::model::{MODEL, ModelFamilies, ModelMetrics};

/// Models with figures of their own; those of all others are added up. A catalog has some tens.
pub const MAX_MODEL_VALUES: usize = 200;
/// Engines whose last sample is kept while they are in no sample: far more than hosts at a time.
const MAX_KEPT_ENTRIES: usize = 1000;

label_values! {
    /// The state of an engine.
    pub enum EnginePhase {
        /// It is loaded when it is first needed.
        Unloaded = "unloaded",
        /// It is downloaded or loaded.
        Loading = "loading",
        /// It serves.
        Ready = "ready",
        /// It finishes its requests, to be unloaded.
        Draining = "draining",
        /// It exited or could not be loaded, and is tried again.
        Failed = "failed",
        /// It failed too often, and is not tried again.
        GivenUp = "given_up",
    }
}

label_values! {
    /// What became of a token in an engine.
    enum TokenUse {
        /// Computed as a part of a prompt.
        Prefill = "prefill",
        /// A part of a prompt that was in a slot or a cache.
        Cached = "cached",
        /// Generated.
        Generated = "generated",
        /// Proposed by speculative decoding.
        Drafted = "drafted",
        /// Proposed so, and accepted.
        Accepted = "accepted",
    }
}

label_values! {
    /// How a sequence ended.
    enum SequenceEnd {
        /// Well.
        Finished = "finished",
        /// Its reader went away.
        Cancelled = "cancelled",
        /// With a failure.
        Failed = "failed",
    }
}

/// An engine at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineSample {
    /// Its id.
    pub id: String,
    /// Its state.
    pub phase: EnginePhase,
    /// Since when it is ready: the totals are since then.
    pub ready_since: Option<SystemTime>,
    /// What it has computed; none if it is not loaded.
    pub totals: Option<EngineTotals>,
    /// Sequences in slots.
    pub running_sequences: u64,
    /// Sequences that wait for a slot.
    pub waiting_sequences: u64,
    /// Steps that wait until it is loaded.
    pub waiting_steps: u32,
    /// Bytes of its prefix cache in host memory.
    pub prefix_cache_bytes: u64,
}

/// What an engine has computed since it was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineTotals {
    /// Batches.
    pub batches: u64,
    /// Tokens of these batches.
    pub batch_tokens: u64,
    /// The time in which it computed these batches.
    pub batch_time: Duration,
    /// The time in which it computed, embeddings included.
    pub compute_time: Duration,
    /// Prompt tokens that it computed.
    pub prefill_tokens: u64,
    /// Prompt tokens that it reused.
    pub cached_tokens: u64,
    /// Tokens that it generated.
    pub generated_tokens: u64,
    /// Tokens that speculative decoding proposed.
    pub drafted_tokens: u64,
    /// Of these, the accepted ones.
    pub accepted_tokens: u64,
    /// Sequences that ended well.
    pub finished: u64,
    /// Sequences whose reader went away.
    pub cancelled: u64,
    /// Sequences that failed.
    pub failed: u64,
}

impl EngineTotals {
    /// Each figure of the later one of two samples of the same engine, whose order is not known.
    fn latest(self, other: Self) -> Self {
        Self {
            batches: self.batches.max(other.batches),
            batch_tokens: self.batch_tokens.max(other.batch_tokens),
            batch_time: self.batch_time.max(other.batch_time),
            compute_time: self.compute_time.max(other.compute_time),
            prefill_tokens: self.prefill_tokens.max(other.prefill_tokens),
            cached_tokens: self.cached_tokens.max(other.cached_tokens),
            generated_tokens: self.generated_tokens.max(other.generated_tokens),
            drafted_tokens: self.drafted_tokens.max(other.drafted_tokens),
            accepted_tokens: self.accepted_tokens.max(other.accepted_tokens),
            finished: self.finished.max(other.finished),
            cancelled: self.cancelled.max(other.cancelled),
            failed: self.failed.max(other.failed),
        }
    }

    /// What has been added since an earlier sample of the same engine.
    fn since(self, earlier: Self) -> Self {
        Self {
            batches: self.batches.saturating_sub(earlier.batches),
            batch_tokens: self.batch_tokens.saturating_sub(earlier.batch_tokens),
            batch_time: self.batch_time.saturating_sub(earlier.batch_time),
            compute_time: self.compute_time.saturating_sub(earlier.compute_time),
            prefill_tokens: self.prefill_tokens.saturating_sub(earlier.prefill_tokens),
            cached_tokens: self.cached_tokens.saturating_sub(earlier.cached_tokens),
            generated_tokens: self.generated_tokens.saturating_sub(earlier.generated_tokens),
            drafted_tokens: self.drafted_tokens.saturating_sub(earlier.drafted_tokens),
            accepted_tokens: self.accepted_tokens.saturating_sub(earlier.accepted_tokens),
            finished: self.finished.saturating_sub(earlier.finished),
            cancelled: self.cancelled.saturating_sub(earlier.cancelled),
            failed: self.failed.saturating_sub(earlier.failed),
        }
    }
}

/// The last sample of an engine: since when it was ready, and its totals.
type LastTotals = HashMap<String, (Option<SystemTime>, EngineTotals)>;

/// The metrics of engines.
#[derive(Debug)]
pub struct EngineMetrics {
    bound: LabelBound,
    lives: ModelFamilies,
    phases: MetricFamily<Gauge, 2>,
    running: MetricFamily<Gauge, 1>,
    waiting: MetricFamily<Gauge, 1>,
    waiting_steps: MetricFamily<Gauge, 1>,
    prefix_cache: MetricFamily<Gauge, 1>,
    batches: MetricFamily<Counter, 1>,
    batch_tokens: MetricFamily<Counter, 1>,
    batch_seconds: MetricFamily<Counter<f64, AtomicU64>, 1>,
    compute_seconds: MetricFamily<Counter<f64, AtomicU64>, 1>,
    tokens: MetricFamily<Counter, 2>,
    sequences: MetricFamily<Counter, 2>,
    last: Mutex<LastTotals>,
}

impl EngineMetrics {
    pub(crate) fn new(register: &mut MetricRegister) -> Self {
        let phase = LabelName::of::<EnginePhase>("state");
        let (token_use, end) = (LabelName::of::<TokenUse>("kind"), LabelName::of::<SequenceEnd>("outcome"));
        let mut level = |name, unit, help| register.family(name, unit, help, [MODEL], Gauge::default);
        let running = level("engine_running_sequences", None, "Sequences in slots of the engine");
        let waiting = level("engine_waiting_sequences", None, "Sequences that wait for a slot of the engine");
        let waiting_steps = level("engine_waiting_steps", None, "Steps that wait until the engine is loaded");
        let prefix_cache = level("engine_prefix_cache", Some(Unit::Bytes), "Host memory of the engine's prefix cache");
        Self {
            bound: LabelBound::new(MAX_MODEL_VALUES),
            lives: ModelFamilies::new(register),
            phases: register.family("engines", None, "Engines in each state", [MODEL, phase], Gauge::default),
            running,
            waiting,
            waiting_steps,
            prefix_cache,
            batches: register.family(
                "engine_batches",
                None,
                "Batches that the engine computed",
                [MODEL],
                Counter::default,
            ),
            batch_tokens: register.family(
                "engine_batch_tokens",
                None,
                "Tokens of the batches that the engine computed",
                [MODEL],
                Counter::default,
            ),
            batch_seconds: register.family(
                "engine_batch",
                Some(Unit::Seconds),
                "Time in which the engine computed these batches",
                [MODEL],
                Counter::default,
            ),
            compute_seconds: register.family(
                "engine_compute",
                Some(Unit::Seconds),
                "Time in which the engine computed anything, embeddings included",
                [MODEL],
                Counter::default,
            ),
            tokens: register.family(
                "engine_tokens",
                None,
                "Tokens that passed the engine, those of failed steps, prefills and the router included",
                [MODEL, token_use],
                Counter::default,
            ),
            sequences: register.family(
                "engine_sequences",
                None,
                "Sequences of the engine that ended",
                [MODEL, end],
                Counter::default,
            ),
            last: Mutex::default(),
        }
    }

    /// The metrics of an engine's life, to be kept by its host.
    pub fn model(&self, id: &str) -> Arc<ModelMetrics> {
        self.lives.model(&self.bound, id)
    }

    /// Takes a sample of all engines. What an engine computed between its last sample and its end is not known.
    pub(crate) fn sampled(&self, samples: &[EngineSample]) {
        for family in [&self.running, &self.waiting, &self.waiting_steps, &self.prefix_cache] {
            family.clear();
        }
        self.phases.clear();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() > MAX_KEPT_ENTRIES {
            last.retain(|id, _| samples.iter().any(|sample| sample.id == *id));
        }
        for sample in samples {
            let model = self.bound.value(&sample.id);
            self.set_gauges(&model, sample);
            match sample.totals {
                Some(totals) => {
                    let earlier = last.get(&sample.id).filter(|(ready_since, _)| *ready_since == sample.ready_since);
                    let earlier = earlier.map_or_else(EngineTotals::default, |(_, totals)| *totals);
                    self.add(&model, totals.since(earlier));
                    last.insert(sample.id.clone(), (sample.ready_since, totals.latest(earlier)));
                }
                None => drop(last.remove(&sample.id)),
            }
        }
    }

    /// Models beyond the bound are added up.
    fn set_gauges(&self, model: &Arc<str>, sample: &EngineSample) {
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for (index, state) in EnginePhase::TEXTS.iter().enumerate() {
            let is_in = index == sample.phase.index();
            self.phases.with([model, &(*state).into()]).inc_by(i64::from(is_in));
        }
        self.running.with([model]).inc_by(gauge(sample.running_sequences));
        self.waiting.with([model]).inc_by(gauge(sample.waiting_sequences));
        self.waiting_steps.with([model]).inc_by(i64::from(sample.waiting_steps));
        self.prefix_cache.with([model]).inc_by(gauge(sample.prefix_cache_bytes));
    }

    fn add(&self, model: &Arc<str>, added: EngineTotals) {
        self.batches.with([model]).inc_by(added.batches);
        self.batch_tokens.with([model]).inc_by(added.batch_tokens);
        self.batch_seconds.with([model]).inc_by(added.batch_time.as_secs_f64());
        self.compute_seconds.with([model]).inc_by(added.compute_time.as_secs_f64());
        for (token_use, count) in [
            (TokenUse::Prefill, added.prefill_tokens),
            (TokenUse::Cached, added.cached_tokens),
            (TokenUse::Generated, added.generated_tokens),
            (TokenUse::Drafted, added.drafted_tokens),
            (TokenUse::Accepted, added.accepted_tokens),
        ] {
            self.tokens.with([model, &TokenUse::TEXTS[token_use.index()].into()]).inc_by(count);
        }
        for (end, count) in [
            (SequenceEnd::Finished, added.finished),
            (SequenceEnd::Cancelled, added.cancelled),
            (SequenceEnd::Failed, added.failed),
        ] {
            self.sequences.with([model, &SequenceEnd::TEXTS[end.index()].into()]).inc_by(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{Metrics, ScrapeSample};

    fn ready(id: &str, started: u64, batches: u64) -> EngineSample {
        EngineSample {
            id: id.to_owned(),
            phase: EnginePhase::Ready,
            ready_since: Some(UNIX_EPOCH + Duration::from_secs(started)),
            totals: Some(EngineTotals {
                batches,
                compute_time: Duration::from_secs(batches),
                ..EngineTotals::default()
            }),
            running_sequences: 2,
            waiting_sequences: 0,
            waiting_steps: 0,
            prefix_cache_bytes: 10,
        }
    }

    fn unloaded(id: &str) -> EngineSample {
        let (phase, running_sequences) = (EnginePhase::Unloaded, 0);
        EngineSample { phase, ready_since: None, totals: None, running_sequences, ..ready(id, 0, 0) }
    }

    fn scrape(metrics: &Metrics, engines: Option<Vec<EngineSample>>) -> String {
        metrics.scrape(&ScrapeSample { engines, ..ScrapeSample::default() })
    }

    #[test]
    fn totals_go_on_when_an_engine_is_loaded_again_and_are_kept_while_it_does_not_answer() {
        let metrics = Metrics::new();
        let batches = |text: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix("artel_engine_batches_total{model=\"talk\"} "));
            line.unwrap().parse::<u64>().unwrap()
        };
        assert_eq!(batches(&scrape(&metrics, Some(vec![ready("talk", 1, 5)]))), 5);
        assert_eq!(batches(&scrape(&metrics, Some(vec![ready("talk", 1, 7)]))), 7);
        // One that was taken before the last.
        assert_eq!(batches(&scrape(&metrics, Some(vec![ready("talk", 1, 6)]))), 7);
        assert_eq!(batches(&scrape(&metrics, Some(vec![ready("talk", 1, 7)]))), 7);
        // It is in no sample, or there is none.
        assert_eq!(batches(&scrape(&metrics, Some(Vec::new()))), 7);
        assert_eq!(batches(&scrape(&metrics, None)), 7);
        assert_eq!(batches(&scrape(&metrics, Some(vec![ready("talk", 1, 8)]))), 8);
        // Another process, which may have done more since than the last one in all.
        assert_eq!(batches(&scrape(&metrics, Some(vec![ready("talk", 9, 10)]))), 18);
        assert_eq!(batches(&scrape(&metrics, Some(vec![unloaded("talk")]))), 18);
        assert_eq!(batches(&scrape(&metrics, Some(vec![ready("talk", 20, 1)]))), 19);
    }

    #[test]
    fn an_engine_is_in_one_state_and_beyond_the_bound_all_are_added_up() {
        let metrics = Metrics::new();
        let engines = (0..MAX_MODEL_VALUES + 3).map(|number| ready(&format!("model-{number}"), 1, 2)).collect();
        let text = scrape(&metrics, Some(engines));
        let states = text.lines().filter(|line| line.starts_with("artel_engines{")).count();
        assert_eq!(states, (MAX_MODEL_VALUES + 1) * EnginePhase::TEXTS.len());
        for sample in [
            "artel_engines{model=\"model-7\",state=\"ready\"} 1\n",
            "artel_engines{model=\"model-7\",state=\"failed\"} 0\n",
            "artel_engines{model=\"other\",state=\"ready\"} 3\n",
            "artel_engine_batches_total{model=\"other\"} 6\n",
            "artel_engine_running_sequences{model=\"other\"} 6\n",
        ] {
            assert!(text.contains(sample), "no {sample} in\n{text}");
        }
        let text = scrape(&metrics, Some(vec![unloaded("model-7")]));
        assert!(text.contains("artel_engines{model=\"model-7\",state=\"unloaded\"} 1\n"));
        assert!(!text.contains("artel_engines{model=\"model-8\""), "gauges are those of the last sample");
    }
}

//! What the steps of a role do.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};

use artel_task::event::{FailureCode, Timings, Usage};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;

use crate::family::{LabelName, MetricFamily, MetricRegister};
use crate::histogram::{AtomicHistogram, LocalHistogram};
use crate::label::{ByValue, LabelBound, label_values};

/// Roles with figures of their own; those of all others are added up. A catalog has some tens.
pub const MAX_ROLE_VALUES: usize = 200;

/// The label of roles.
const ROLE: LabelName = LabelName::of_names("role");

/// Upper bounds for steps, in seconds: from a short answer on a GPU to the longest timeouts.
pub(crate) const STEP_BOUNDS: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
/// Upper bounds for the time to the first token, in seconds: from a warm prefix on a GPU to a long queue. As vLLM, with fewer.
const FIRST_TOKEN_BOUNDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0];
/// Upper bounds for gaps between tokens, in seconds: from a small model on a GPU to a stall that a client sees. As vLLM.
const GAP_BOUNDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];

label_values! {
    /// How an attempt at a step ended.
    pub(crate) enum StepEnd {
        /// With an output.
        Finished = "finished",
        /// With the output of an earlier run, from the response cache.
        Cached = "cached",
        /// It failed, and another attempt follows.
        Retried = "retried",
        /// It failed, and none follows.
        Failed = "failed",
        /// A client cancelled it.
        Cancelled = "cancelled",
    }
}

label_values! {
    /// A part of the time of a step.
    pub enum StepStage {
        /// Before its request is at the engine: the role's queue, the load of the model; and after it, the commit.
        Outside = "outside",
        /// From the request to the first batch with a token of it.
        Queue = "queue",
        /// From there to the end of the prompt.
        Prefill = "prefill",
        /// From there to the last token.
        Decode = "decode",
        /// All of an attempt that failed or was cancelled: where it spent its time is not known.
        Failed = "failed",
    }
}

label_values! {
    /// The codes of failures, as they are journalled.
    pub(crate) enum FailureLabel {
        /// See [`FailureCode::Timeout`].
        Timeout = "timeout",
        /// See [`FailureCode::Idle`].
        Idle = "idle",
        /// See [`FailureCode::ContextOverflow`].
        ContextOverflow = "context_overflow",
        /// See [`FailureCode::ModelUnavailable`].
        ModelUnavailable = "model_unavailable",
        /// See [`FailureCode::Template`].
        Template = "template",
        /// See [`FailureCode::Condition`].
        Condition = "condition",
        /// See [`FailureCode::NoEdge`].
        NoEdge = "no_edge",
        /// See [`FailureCode::Interrupted`].
        Interrupted = "interrupted",
        /// See [`FailureCode::OutputInvalid`].
        OutputInvalid = "output_invalid",
        /// See [`FailureCode::Cancelled`].
        Cancelled = "cancelled",
        /// See [`FailureCode::Internal`].
        Internal = "internal",
        /// One that steps of roles hardly have.
        Other = "other",
    }
}

impl From<FailureCode> for FailureLabel {
    fn from(code: FailureCode) -> Self {
        match code {
            FailureCode::Timeout => Self::Timeout,
            FailureCode::Idle => Self::Idle,
            FailureCode::ContextOverflow => Self::ContextOverflow,
            FailureCode::ModelUnavailable => Self::ModelUnavailable,
            FailureCode::Template => Self::Template,
            FailureCode::Condition => Self::Condition,
            FailureCode::NoEdge => Self::NoEdge,
            FailureCode::Interrupted => Self::Interrupted,
            FailureCode::OutputInvalid => Self::OutputInvalid,
            FailureCode::Cancelled => Self::Cancelled,
            FailureCode::Internal => Self::Internal,
            FailureCode::JoinStuck
            | FailureCode::LimitSteps
            | FailureCode::LimitTokens
            | FailureCode::LimitTime
            | FailureCode::QueueFull
            | FailureCode::Router
            | FailureCode::NoAnswer
            | FailureCode::Items => Self::Other,
        }
    }
}

/// The metrics of one role, resolved once for each of its steps.
#[derive(Debug)]
pub struct RoleMetrics {
    waiting: Gauge,
    running: Gauge,
    queue_full: Counter,
    ended: ByValue<StepEnd, Counter>,
    failures: ByValue<FailureLabel, Counter>,
    pub(crate) seconds: AtomicHistogram,
    stage_seconds: ByValue<StepStage, Counter<f64, AtomicU64>>,
    first_token: AtomicHistogram,
    gaps: AtomicHistogram,
    prompt_tokens: Counter,
    cached_tokens: Counter,
    generated_tokens: Counter,
    cache_queries: Counter,
    cache_hits: Counter,
}

/// Counts one as long as it is there.
#[derive(Debug)]
pub struct GaugeGuard(Gauge);

impl GaugeGuard {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl RoleMetrics {
    /// A step waits in the role's queue until this is dropped.
    pub fn waiting_step(&self) -> GaugeGuard {
        GaugeGuard::new(&self.waiting)
    }

    /// A step runs until this is dropped.
    pub fn running_step(&self) -> GaugeGuard {
        GaugeGuard::new(&self.running)
    }

    /// A step found the role's queue full, and will be offered again.
    pub fn found_queue_full(&self) {
        self.queue_full.inc();
    }

    /// The gaps between the tokens of a step.
    pub fn token_gaps(&self) -> LocalHistogram {
        self.gaps.local()
    }

    pub(crate) fn ended(&self, end: StepEnd) {
        self.ended.of(end).inc();
    }

    pub(crate) fn failed(&self, code: FailureCode) {
        self.failures.of(code.into()).inc();
    }

    /// An attempt without a result took this long, from its start to its end.
    pub(crate) fn took_without_result(&self, seconds: f64) {
        self.seconds.observe(seconds);
        self.stage_seconds.of(StepStage::Failed).inc_by(seconds);
    }

    /// A finished attempt took this long, from its start to its end, and this long at the engine.
    pub(crate) fn took(&self, seconds: f64, timings: &Timings) {
        self.seconds.observe(seconds);
        let stages = [
            (StepStage::Queue, timings.queue),
            (StepStage::Prefill, timings.prefill),
            (StepStage::Decode, timings.decode),
        ];
        let mut outside = seconds;
        for (stage, time) in stages {
            self.stage_seconds.of(stage).inc_by(time.as_secs_f64());
            outside -= time.as_secs_f64();
        }
        // The events have milliseconds, the stages more.
        self.stage_seconds.of(StepStage::Outside).inc_by(outside.max(0.0));
    }

    pub(crate) fn used(&self, usage: &Usage, timings: &Timings) {
        let cached = usage.prompt.saturating_sub(usage.computed);
        self.prompt_tokens.inc_by(u64::from(usage.prompt));
        self.cached_tokens.inc_by(u64::from(cached));
        self.generated_tokens.inc_by(u64::from(usage.output));
        if usage.prompt > 0 {
            self.cache_queries.inc();
            self.cache_hits.inc_by(u64::from(cached > 0));
        }
        if usage.output > 0 {
            self.first_token.observe_time(timings.queue + timings.prefill);
        }
    }
}

/// The metrics of all roles.
#[derive(Debug)]
pub(crate) struct RoleFamilies {
    bound: LabelBound,
    roles: RwLock<HashMap<Arc<str>, Arc<RoleMetrics>>>,
    waiting: MetricFamily<Gauge, 1>,
    running: MetricFamily<Gauge, 1>,
    queue_full: MetricFamily<Counter, 1>,
    ended: MetricFamily<Counter, 2>,
    failures: MetricFamily<Counter, 2>,
    seconds: MetricFamily<AtomicHistogram, 1>,
    stage_seconds: MetricFamily<Counter<f64, AtomicU64>, 2>,
    first_token: MetricFamily<AtomicHistogram, 1>,
    gaps: MetricFamily<AtomicHistogram, 1>,
    prompt_tokens: MetricFamily<Counter, 1>,
    cached_tokens: MetricFamily<Counter, 1>,
    generated_tokens: MetricFamily<Counter, 1>,
    cache_queries: MetricFamily<Counter, 1>,
    cache_hits: MetricFamily<Counter, 1>,
}

impl RoleFamilies {
    pub(crate) fn new(register: &mut MetricRegister) -> Self {
        let seconds = || Some(Unit::Seconds);
        let mut count = |name, help| register.family(name, None, help, [ROLE], Counter::default);
        let queue_full = count("step_queue_full", "Times that a step found its role's queue full and was put off");
        let prompt_tokens = count("prompt_tokens", "Prompt tokens of finished steps");
        let cached_tokens = count("cached_prompt_tokens", "Prompt tokens of finished steps that were reused");
        let generated_tokens = count("generated_tokens", "Tokens generated by finished steps");
        let cache_queries =
            count("prefix_cache_queries", "Finished steps whose prompt was looked up in the prefix cache");
        let cache_hits = count("prefix_cache_hits", "Finished steps that reused at least one token of their prompt");
        let mut level = |name, help| register.family(name, None, help, [ROLE], Gauge::default);
        let waiting = level("steps_waiting", "Steps that wait in their role's queue");
        let running = level("steps_running", "Steps that have left their role's queue and run");
        let (end, code) = (LabelName::of::<StepEnd>("outcome"), LabelName::of::<FailureLabel>("code"));
        let stage = LabelName::of::<StepStage>("stage");
        Self {
            bound: LabelBound::new(MAX_ROLE_VALUES),
            roles: RwLock::default(),
            waiting,
            running,
            queue_full,
            ended: register.family("steps", None, "Attempts at steps that ended", [ROLE, end], Counter::default),
            failures: register.family(
                "step_failures",
                None,
                "Attempts at steps that failed",
                [ROLE, code],
                Counter::default,
            ),
            seconds: register.family(
                "step",
                seconds(),
                "Time of finished and failed attempts from their start to their end, queues and loads included",
                [ROLE],
                || AtomicHistogram::new(STEP_BOUNDS),
            ),
            stage_seconds: register.family(
                "step_stage",
                seconds(),
                "The same time in sum, by where it was spent",
                [ROLE, stage],
                Counter::default,
            ),
            first_token: register.family(
                "time_to_first_token",
                seconds(),
                "Time of finished steps from the request to the engine to the first token, the engine's queue included",
                [ROLE],
                || AtomicHistogram::new(FIRST_TOKEN_BOUNDS),
            ),
            gaps: register.family(
                "inter_token_latency",
                seconds(),
                "Time between two pieces of text that an engine sent for one step",
                [ROLE],
                || AtomicHistogram::new(GAP_BOUNDS),
            ),
            prompt_tokens,
            cached_tokens,
            generated_tokens,
            cache_queries,
            cache_hits,
        }
    }

    /// The metrics of a role. To be kept for a step: this looks them up.
    pub(crate) fn role(&self, name: &str) -> Arc<RoleMetrics> {
        let poisoned = "nothing panics while it holds the metrics of roles";
        if let Some(role) = self.roles.read().expect(poisoned).get(name) {
            return role.clone();
        }
        let value = self.bound.value(name);
        // Roles beyond the bound share one entry, so that the map is bounded too.
        self.roles
            .write()
            .expect(poisoned)
            .entry(value.clone())
            .or_insert_with(|| Arc::new(self.resolve(&value)))
            .clone()
    }

    fn resolve(&self, role: &Arc<str>) -> RoleMetrics {
        let own = |family: &MetricFamily<Counter, 1>| family.with([role]);
        RoleMetrics {
            waiting: self.waiting.with([role]),
            running: self.running.with([role]),
            queue_full: own(&self.queue_full),
            ended: ByValue::new(|end| self.ended.with([role, &end.into()])),
            failures: ByValue::new(|code| self.failures.with([role, &code.into()])),
            seconds: self.seconds.with([role]),
            stage_seconds: ByValue::new(|stage| self.stage_seconds.with([role, &stage.into()])),
            first_token: self.first_token.with([role]),
            gaps: self.gaps.with([role]),
            prompt_tokens: own(&self.prompt_tokens),
            cached_tokens: own(&self.cached_tokens),
            generated_tokens: own(&self.generated_tokens),
            cache_queries: own(&self.cache_queries),
            cache_hits: own(&self.cache_hits),
        }
    }
}

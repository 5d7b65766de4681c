//! What becomes of tasks.

use std::sync::Arc;

use artel_task::event::{TaskPriority, TaskSpec, Timestamp};
use artel_task::{Event, EventKind};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;

use crate::family::{LabelName, MetricRegister};
use crate::histogram::AtomicHistogram;
use crate::label::{ByValue, label_values};
use crate::role::{RoleFamilies, RoleMetrics, STEP_BOUNDS};
use crate::router::RouterMetrics;

label_values! {
    /// How a task ended.
    enum TaskEnd {
        /// With a result.
        Completed = "completed",
        /// With a failure.
        Failed = "failed",
        /// A client cancelled it.
        Cancelled = "cancelled",
    }
}

label_values! {
    /// What an open task does.
    enum TaskActivity {
        /// Its steps run, or wait in queues.
        Running = "running",
        /// It waits for answers of people only.
        Paused = "paused",
    }
}

label_values! {
    /// The priority of a task.
    enum PriorityLabel {
        /// A client waits.
        Interactive = "interactive",
        /// None does.
        Batch = "batch",
    }
}

/// The open tasks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TaskCounts {
    /// Tasks whose steps run, or wait in queues.
    pub running: usize,
    /// Tasks that wait for answers of people only.
    pub paused: usize,
    /// How many may be open.
    pub limit: usize,
}

/// The metrics of tasks, their roles and routers.
#[derive(Debug)]
pub struct TaskMetrics {
    accepted: ByValue<PriorityLabel, Counter>,
    ended: ByValue<TaskEnd, Counter>,
    seconds: ByValue<TaskEnd, AtomicHistogram>,
    set_aside: Counter,
    resumed: Counter,
    open: ByValue<TaskActivity, Gauge>,
    limit: Gauge,
    roles: RoleFamilies,
    pub(crate) router: RouterMetrics,
}

impl TaskMetrics {
    pub(crate) fn new(register: &mut MetricRegister) -> Self {
        let priority = LabelName::of::<PriorityLabel>("priority");
        let outcome = LabelName::of::<TaskEnd>("outcome");
        let state = LabelName::of::<TaskActivity>("state");
        let accepted = register.family("tasks_accepted", None, "Tasks accepted", [priority], Counter::default);
        let ended = register.family("tasks_ended", None, "Tasks that ended", [outcome], Counter::default);
        let seconds = register.family(
            "task",
            Some(Unit::Seconds),
            "Time of tasks from their acceptance to their end, the waiting for people included",
            [outcome],
            || AtomicHistogram::new(STEP_BOUNDS),
        );
        let open = register.family("tasks", None, "Tasks that are open", [state], Gauge::default);
        let mut count = |name, help| register.single(name, None, help, Counter::default());
        let set_aside = count("tasks_set_aside", "Times that a task was set aside");
        let resumed = count("tasks_resumed", "Times that a task was resumed after a restart or a request to");
        Self {
            accepted: ByValue::new(|value| accepted.with([&value.into()])),
            ended: ByValue::new(|value| ended.with([&value.into()])),
            seconds: ByValue::new(|value| seconds.with([&value.into()])),
            set_aside,
            resumed,
            open: ByValue::new(|value| open.with([&value.into()])),
            limit: register.single("tasks_limit", None, "Tasks that may be open at once", Gauge::default()),
            roles: RoleFamilies::new(register),
            router: RouterMetrics::new(register),
        }
    }

    /// The metrics of a role. To be kept for a step: this looks them up.
    pub fn role(&self, name: &str) -> Arc<RoleMetrics> {
        self.roles.role(name)
    }

    /// A task was accepted, and that is on disk.
    pub fn accepted(&self, spec: &TaskSpec) {
        let priority = match spec.priority {
            TaskPriority::Interactive => PriorityLabel::Interactive,
            TaskPriority::Batch => PriorityLabel::Batch,
        };
        self.accepted.of(priority).inc();
        // A fork takes over the decision of the task that it was forked from.
        if let Some(decision) = spec.decision.as_ref().filter(|_| spec.forked_from.is_none()) {
            self.router.decided(decision);
        }
    }

    /// An event of a task was committed that nothing runs: only what concerns the task as a whole counts.
    pub fn committed_alone(&self, event: &Event) {
        match &event.kind {
            EventKind::Completed { .. } => self.ended(TaskEnd::Completed, event),
            EventKind::Failed { .. } => self.ended(TaskEnd::Failed, event),
            EventKind::Cancelled { .. } => self.ended(TaskEnd::Cancelled, event),
            EventKind::SetAside { .. } => {
                self.set_aside.inc();
            }
            EventKind::Resumed => {
                self.resumed.inc();
            }
            _ => {}
        }
    }

    fn ended(&self, end: TaskEnd, event: &Event) {
        self.ended.of(end).inc();
        let accepted = Timestamp(event.task.unix_millis());
        self.seconds.of(end).observe(seconds_between(accepted, event.at));
    }

    pub(crate) fn set_open(&self, counts: TaskCounts) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.open.of(TaskActivity::Running).set(gauge(counts.running));
        self.open.of(TaskActivity::Paused).set(gauge(counts.paused));
        self.limit.set(gauge(counts.limit));
    }
}

/// The time between two events; the wall clock may have been set back.
pub(crate) fn seconds_between(start: Timestamp, end: Timestamp) -> f64 {
    std::time::Duration::from_millis(end.0.saturating_sub(start.0)).as_secs_f64()
}

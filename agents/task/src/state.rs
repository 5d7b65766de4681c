//! The state of a task: the fold of its events.

mod active;
mod run;
mod scope;

use std::time::Duration;

use serde_json::Value;

use crate::event::{Event, EventKind, Failure, Output, TaskSpec, Timestamp, Trigger, as_text};
use crate::id::{NodeName, PathSegment, RoleName, Seq, StepId, TaskId, Visit};

pub use run::{ActiveVisit, MapRun, NestedRun, NodeState, ResourceUsage, Scope, VisitStatus};
pub use scope::output_value;

/// After this many resumes in a row without progress a task is set aside: a daemon that is stopped twice during a long step
/// does not reach it, and one that the task itself kills is down for some seconds only.
pub const MAX_STALLED_RESUMES: u32 = 3;

/// The phase of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// It has not ended.
    Running,
    /// It is not run until a client takes it up again, for this reason. It has not ended.
    SetAside(String),
    /// It completed.
    Completed(Output),
    /// It failed.
    Failed(Failure),
    /// It was cancelled, for this reason.
    Cancelled(String),
}

/// The state of one task.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The task.
    pub task: TaskId,
    /// The request that it was accepted with.
    pub spec: TaskSpec,
    /// When the task was accepted.
    pub accepted_at: Timestamp,
    /// When the last event was recorded.
    pub last_event_at: Timestamp,
    /// How long it was paused: no daemon ran it, or it waited for human answers only. This time counts against no limit.
    pub paused: Duration,
    /// The last applied event.
    pub last_seq: Seq,
    /// The phase of the task.
    pub phase: Phase,
    /// How often it was resumed since it last made progress, resumes with nothing to do left out: those while it waits for
    /// human answers or for a retry, and those of the task that it was forked from.
    pub stalled_resumes: u32,
    /// The run of its graph.
    pub root: Scope,
}

/// Events that do not follow from each other: a damaged journal or an internal fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The first event is not `accepted`.
    #[error("the events of a task begin with `accepted`")]
    NotAccepted,
    /// A sequence number is missing or duplicated.
    #[error("event {got} follows event {last}: an event is missing or duplicated")]
    Gap {
        /// The last applied event.
        last: u64,
        /// The event that was offered.
        got: u64,
    },
    /// The task is set aside, and the event neither resumes nor ends it.
    #[error("event {0} comes while the task is set aside")]
    WhileSetAside(u64),
    /// The task had ended.
    #[error("event {0} comes after the end of the task")]
    AfterEnd(u64),
    /// A step ends that is not running, or one starts that cannot.
    #[error("step `{0}` is not running")]
    NotRunning(StepId),
}

impl State {
    /// The state after the first event.
    pub fn begin(event: &Event, start: &NodeName) -> Result<Self, ReplayError> {
        let EventKind::Accepted(spec) = &event.kind else { return Err(ReplayError::NotAccepted) };
        if event.seq != Seq(1) {
            return Err(ReplayError::Gap { last: 0, got: event.seq.0 });
        }
        let root = Scope::begin(event.task, &spec.graph, start, &spec.input, Duration::ZERO);
        Ok(Self {
            task: event.task,
            spec: spec.clone(),
            accepted_at: event.at,
            last_event_at: event.at,
            paused: Duration::ZERO,
            last_seq: event.seq,
            phase: Phase::Running,
            stalled_resumes: 0,
            root,
        })
    }

    /// The state after all these events, the first of which is `accepted`.
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a Event>, start: &NodeName) -> Result<Self, ReplayError> {
        let mut events = events.into_iter();
        let mut state = Self::begin(events.next().ok_or(ReplayError::NotAccepted)?, start)?;
        events.try_for_each(|event| state.apply(event))?;
        Ok(state)
    }

    /// Applies the next event. After an error the state must be discarded.
    pub fn apply(&mut self, event: &Event) -> Result<(), ReplayError> {
        if event.seq != self.last_seq.next() {
            return Err(ReplayError::Gap { last: self.last_seq.0, got: event.seq.0 });
        }
        match self.phase {
            Phase::Running => {}
            Phase::SetAside(_) if event.kind == EventKind::Resumed || event.kind.is_last() => {}
            Phase::SetAside(_) => return Err(ReplayError::WhileSetAside(event.seq.0)),
            _ => return Err(ReplayError::AfterEnd(event.seq.0)),
        }
        // Until it was resumed or set aside, no daemon may have run it.
        if self.is_paused() || matches!(event.kind, EventKind::Resumed | EventKind::SetAside { .. }) {
            self.paused += Duration::from_millis(event.at.0.saturating_sub(self.last_event_at.0));
        }
        match &event.kind {
            EventKind::Accepted(_) => return Err(ReplayError::NotAccepted),
            EventKind::Routed { .. } => {}
            EventKind::StepStarted { step, trigger, nested, .. } => {
                let (age, task) = (self.age_at(event.at), self.task);
                let scope = self.enter(step, |scope| scope.usage.steps += 1)?;
                let nested = nested.as_ref().map(|nested| NestedRun::begin(task, nested, age));
                scope.started(step, *trigger, nested, age)?;
            }
            EventKind::Waiting { step, deadline, .. } => {
                self.enter(step, |_| {})?.running(step)?.status = VisitStatus::AwaitingAnswer { deadline: *deadline };
            }
            EventKind::StepFinished { step, output, usage, taken, write, .. } => {
                let scope = self.enter(step, |scope| scope.usage.tokens += usage.total())?;
                scope.finished(step, output, taken, write.as_ref())?;
            }
            EventKind::StepFailed { step, failure, retry_after, taken, partial } => {
                let scope = self.enter(step, |_| {})?;
                match retry_after {
                    Some(after) => scope.running(step)?.retry(event.at, *after, failure.code),
                    None => scope.failed(step, failure, taken, partial.as_deref())?,
                }
            }
            EventKind::Resumed => self.resume(event),
            EventKind::SetAside { reason } => self.phase = Phase::SetAside(reason.clone()),
            EventKind::Completed { output, .. } => self.phase = Phase::Completed(output.clone()),
            EventKind::Failed { failure } => self.phase = Phase::Failed(failure.clone()),
            EventKind::Cancelled { reason, .. } => self.phase = Phase::Cancelled(reason.clone()),
        }
        if event.kind.is_progress() {
            self.stalled_resumes = 0;
        }
        self.last_seq = event.seq;
        self.last_event_at = event.at;
        Ok(())
    }

    fn resume(&mut self, event: &Event) {
        if let Phase::SetAside(_) = self.phase {
            (self.phase, self.stalled_resumes) = (Phase::Running, 0);
            self.root.forget_failures();
        } else if self.root.can_act(event.at) && !self.is_of_origin(event.seq) {
            self.stalled_resumes += 1;
        }
        self.root.resume();
    }

    /// Whether an event was copied from the task that this one was forked from, or is the resume with which it then started.
    fn is_of_origin(&self, seq: Seq) -> bool {
        let copied = self.spec.forked_from.as_ref().map_or(0, |origin| u64::from(origin.copied));
        copied > 0 && seq.0 <= copied + 2
    }

    /// How long the task has run, pauses excluded; time limits apply to this.
    pub fn age(&self, now: Timestamp) -> Duration {
        let current = if self.is_paused() { now.0.saturating_sub(self.last_event_at.0) } else { 0 };
        self.age_at(now).saturating_sub(Duration::from_millis(current))
    }

    fn age_at(&self, now: Timestamp) -> Duration {
        Duration::from_millis(now.0.saturating_sub(self.accepted_at.0)).saturating_sub(self.paused)
    }

    /// Whether it waits for human answers only. The task's clock is stopped meanwhile.
    pub fn is_paused(&self) -> bool {
        self.phase == Phase::Running && !self.root.is_awake()
    }

    /// The steps and tokens that the task has used.
    pub fn usage(&self) -> ResourceUsage {
        self.root.usage
    }

    /// The run of the graph inside these visits; that of the task's own graph if the path is empty.
    pub fn scope(&self, path: &[PathSegment]) -> Option<&Scope> {
        path.iter().try_fold(&self.root, |scope, segment| scope.active_visit(segment)?.scope())
    }

    /// A visit that has not ended.
    pub fn active_visit(&self, visit: &Visit) -> Option<&ActiveVisit> {
        self.scope(&visit.parents)?.active_visit(&visit.segment())
    }

    /// The steps that wait for a human answer.
    pub fn open_questions(&self) -> Vec<StepId> {
        self.leaf_steps(|status| matches!(status, VisitStatus::AwaitingAnswer { .. }))
    }

    /// The steps that run, or ran when the daemon stopped; those that contain others are left out.
    pub fn running_steps(&self) -> Vec<StepId> {
        self.leaf_steps(|status| matches!(status, VisitStatus::Running | VisitStatus::Interrupted))
    }

    fn leaf_steps(&self, is_wanted: fn(VisitStatus) -> bool) -> Vec<StepId> {
        let mut steps = Vec::new();
        self.root.collect_steps(&mut Vec::new(), is_wanted, &mut steps);
        steps
    }

    /// The item of a visit.
    pub fn item(&self, visit: &Visit) -> Option<&Value> {
        self.active_visit(&visit.without_item())?.items()?.list.get(visit.item? as usize)
    }

    /// The default input text of a visit: its item, else the outputs of the nodes that triggered it, else the graph's input.
    pub fn input_of(&self, visit: &Visit) -> String {
        let sources = self.active_visit(visit).map(|active| active.sources.clone()).unwrap_or_default();
        self.input_from(visit, &sources)
    }

    /// The same for a visit that this trigger is about to start, or for a retry.
    pub fn input_before_start(&self, visit: &Visit, trigger: Option<Trigger>) -> String {
        let scope = self.scope(&visit.parents);
        match (trigger, scope.and_then(|scope| scope.nodes.get(&visit.node))) {
            (Some(trigger), Some(node)) => self.input_from(visit, &node.sources(trigger)),
            _ => self.input_of(visit),
        }
    }

    fn input_from(&self, visit: &Visit, sources: &[NodeName]) -> String {
        if let Some(item) = self.item(visit) {
            return as_text(item);
        }
        let Some(scope) = self.scope(&visit.parents) else { return String::new() };
        let texts: Vec<&str> =
            sources.iter().filter_map(|node| Some(scope.nodes.get(node)?.output.as_ref()?.text.as_str())).collect();
        if texts.is_empty() { scope.input().to_owned() } else { texts.join("\n\n") }
    }

    /// The role of this rank, from 1, that a router node of the same graph chose last for a visit; for the visit's item, if the
    /// router decided per item.
    pub fn routed_role(&self, router: &NodeName, visit: &Visit, rank: u32) -> Option<RoleName> {
        let node = self.scope(&visit.parents)?.nodes.get(router)?;
        let output = node.output.as_ref()?;
        let item = visit.item.filter(|_| !node.roles.is_empty()).map(|item| item as usize);
        if rank <= 1 {
            return item.map_or(output.role.as_ref(), |item| node.roles.get(item)?.as_ref()).cloned();
        }
        let json = output.json.as_ref()?;
        let roles = item.map_or(Some(json), |item| json.get(item))?.get("roles")?;
        RoleName::parse(roles.get(rank as usize - 1)?.as_str()?).ok()
    }

    /// The scope of a step, after `each` was applied to it and to all scopes around it.
    fn enter(&mut self, step: &StepId, mut each: impl FnMut(&mut Scope)) -> Result<&mut Scope, ReplayError> {
        let mut scope = &mut self.root;
        each(scope);
        for parent in &step.visit.parents {
            let nested = scope.active_visit_mut(parent).and_then(ActiveVisit::scope_mut);
            scope = nested.ok_or_else(|| ReplayError::NotRunning(step.clone()))?;
            each(scope);
        }
        Ok(scope)
    }
}

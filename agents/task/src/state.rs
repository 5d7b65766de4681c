//! The state of a task: the fold of its events.

mod live;
mod scope;

use std::time::Duration;

use serde_json::Value;

use crate::event::{Accepted, Event, Failure, Kind, Output, Timestamp, Trigger, as_text};
use crate::id::{NodeName, Place, RoleName, Seq, StepId, TaskId, Visit};

pub use live::{Items, Live, Running, Status};
pub use scope::output_value;
pub use scope::{Node, Scope, Spent};

/// Where a task stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// It has work to do.
    Running,
    /// It is done.
    Completed(Output),
    /// It failed.
    Failed(Failure),
    /// It was cancelled, for this reason.
    Cancelled(String),
}

/// The state of one task.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Whose state.
    pub task: TaskId,
    /// What the client asked for.
    pub accepted: Accepted,
    /// When the task was accepted.
    pub since: Timestamp,
    /// When the last event was written down.
    pub at: Timestamp,
    /// How long nothing was to be done: no daemon ran the task, or nobody but people was waited for. It counts against no
    /// limit.
    pub rested: Duration,
    /// The last event folded in.
    pub last: Seq,
    /// Where the task stands.
    pub phase: Phase,
    /// The run of its graph.
    pub root: Scope,
}

/// Events that do not follow from each other: a damaged journal or a fault of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The first event is not `accepted`.
    #[error("the events of a task begin with `accepted`")]
    NotAccepted,
    /// A number is missing or comes twice.
    #[error("event {got} follows event {last}")]
    Gap {
        /// The last event folded in.
        last: u64,
        /// The one offered.
        got: u64,
    },
    /// The task had ended.
    #[error("event {0} comes after the end")]
    AfterEnd(u64),
    /// A step that does not run ends, or one begins where none can.
    #[error("step {0} does not run")]
    NotRunning(StepId),
}

impl State {
    /// The state after the first event.
    pub fn begin(event: &Event, start: &NodeName) -> Result<Self, Broken> {
        let Kind::Accepted(accepted) = &event.kind else { return Err(Broken::NotAccepted) };
        if event.seq != Seq(1) {
            return Err(Broken::Gap { last: 0, got: event.seq.0 });
        }
        let root = Scope::begin(event.task, &accepted.graph, start, &accepted.input, Duration::ZERO);
        Ok(Self {
            task: event.task,
            accepted: accepted.clone(),
            since: event.at,
            at: event.at,
            rested: Duration::ZERO,
            last: event.seq,
            phase: Phase::Running,
            root,
        })
    }

    /// The state after all these events, the first of which is `accepted`.
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a Event>, start: &NodeName) -> Result<Self, Broken> {
        let mut events = events.into_iter();
        let mut state = Self::begin(events.next().ok_or(Broken::NotAccepted)?, start)?;
        events.try_for_each(|event| state.apply(event))?;
        Ok(state)
    }

    /// Folds the next event in. After an error the state is of no more use.
    pub fn apply(&mut self, event: &Event) -> Result<(), Broken> {
        if event.seq != self.last.next() {
            return Err(Broken::Gap { last: self.last.0, got: event.seq.0 });
        }
        if self.phase != Phase::Running {
            return Err(Broken::AfterEnd(event.seq.0));
        }
        if self.rests() || event.kind == Kind::Resumed {
            self.rested += Duration::from_millis(event.at.0.saturating_sub(self.at.0));
        }
        match &event.kind {
            Kind::Accepted(_) => return Err(Broken::NotAccepted),
            Kind::Routed { .. } => {}
            Kind::StepStarted { step, trigger, inner, .. } => {
                let (age, task) = (self.age_at(event.at), self.task);
                let scope = self.enter(step, |scope| scope.spent.steps += 1)?;
                let inner = inner.as_ref().map(|inner| Running::begin(task, inner, age));
                scope.started(step, *trigger, inner, age)?;
            }
            Kind::Waiting { step, deadline, .. } => {
                self.enter(step, |_| {})?.running(step)?.status = Status::Asked { deadline: *deadline };
            }
            Kind::StepFinished { step, output, usage, took, wrote, .. } => {
                let scope = self.enter(step, |scope| scope.spent.tokens += usage.total())?;
                scope.finished(step, output, took, wrote.as_ref())?;
            }
            Kind::StepFailed { step, failure, retry_after, took } => {
                let scope = self.enter(step, |_| {})?;
                match retry_after {
                    Some(after) => scope.running(step)?.fail(event.at, *after),
                    None => scope.failed(step, failure, took)?,
                }
            }
            Kind::Resumed => self.root.resumed(),
            Kind::Completed { output, .. } => self.phase = Phase::Completed(output.clone()),
            Kind::Failed { failure } => self.phase = Phase::Failed(failure.clone()),
            Kind::Cancelled { reason } => self.phase = Phase::Cancelled(reason.clone()),
        }
        self.last = event.seq;
        self.at = event.at;
        Ok(())
    }

    /// How long the task has been run so far, which is what limits of time count.
    pub fn age(&self, now: Timestamp) -> Duration {
        let still = if self.rests() { now.0.saturating_sub(self.at.0) } else { 0 };
        self.age_at(now).saturating_sub(Duration::from_millis(still))
    }

    fn age_at(&self, now: Timestamp) -> Duration {
        Duration::from_millis(now.0.saturating_sub(self.since.0)).saturating_sub(self.rested)
    }

    /// Whether nobody but people is waited for. The task's clock stands still then.
    pub fn rests(&self) -> bool {
        self.phase == Phase::Running && !self.root.is_awake()
    }

    /// What the task has used.
    pub fn spent(&self) -> Spent {
        self.root.spent
    }

    /// The run of a graph inside of these visits; that of the task's own graph inside of none.
    pub fn scope(&self, within: &[Place]) -> Option<&Scope> {
        within.iter().try_fold(&self.root, |scope, place| scope.live(place)?.scope())
    }

    /// A visit that is not over.
    pub fn live(&self, visit: &Visit) -> Option<&Live> {
        self.scope(&visit.within)?.live(&visit.place())
    }

    /// The steps that wait for people.
    pub fn asked(&self) -> Vec<StepId> {
        let mut asked = Vec::new();
        self.root.asked(&mut Vec::new(), &mut asked);
        asked
    }

    /// The item that a visit is for.
    pub fn item(&self, visit: &Visit) -> Option<&Value> {
        self.live(&visit.whole())?.items()?.list.get(visit.item? as usize)
    }

    /// The text that a visit reads unless its role says otherwise: its item, what the nodes before it gave, or the input.
    pub fn input_of(&self, visit: &Visit) -> String {
        let from = self.live(visit).map(|live| live.from.clone()).unwrap_or_default();
        self.input_from(visit, &from)
    }

    /// The same for a visit that this trigger is about to begin, or for a further attempt at one.
    pub fn input_ahead(&self, visit: &Visit, trigger: Option<Trigger>) -> String {
        let scope = self.scope(&visit.within);
        match (trigger, scope.and_then(|scope| scope.nodes.get(&visit.node))) {
            (Some(trigger), Some(node)) => self.input_from(visit, &node.sources(trigger)),
            _ => self.input_of(visit),
        }
    }

    fn input_from(&self, visit: &Visit, from: &[NodeName]) -> String {
        if let Some(item) = self.item(visit) {
            return as_text(item);
        }
        let Some(scope) = self.scope(&visit.within) else { return String::new() };
        let texts: Vec<&str> =
            from.iter().filter_map(|node| Some(scope.nodes.get(node)?.output.as_ref()?.text.as_str())).collect();
        if texts.is_empty() { scope.input().to_owned() } else { texts.join("\n\n") }
    }

    /// The role that a router node of the same graph chose last for a visit, in this place among the best, from 1: for its
    /// item, if the router decided for each.
    pub fn chosen_by(&self, router: &NodeName, visit: &Visit, rank: u32) -> Option<RoleName> {
        let node = self.scope(&visit.within)?.nodes.get(router)?;
        let output = node.output.as_ref()?;
        let item = visit.item.filter(|_| !node.roles.is_empty()).map(|item| item as usize);
        if rank <= 1 {
            return item.map_or(output.role.as_ref(), |item| node.roles.get(item)?.as_ref()).cloned();
        }
        let json = output.json.as_ref()?;
        let roles = item.map_or(Some(json), |item| json.get(item))?.get("roles")?;
        RoleName::parse(roles.get(rank as usize - 1)?.as_str()?).ok()
    }

    /// The graph's run in which a step lies, after something was done to it and all around it.
    fn enter(&mut self, step: &StepId, mut each: impl FnMut(&mut Scope)) -> Result<&mut Scope, Broken> {
        let mut scope = &mut self.root;
        each(scope);
        for place in &step.visit.within {
            let inner = scope.live_mut(place).and_then(Live::scope_mut);
            scope = inner.ok_or_else(|| Broken::NotRunning(step.clone()))?;
            each(scope);
        }
        Ok(scope)
    }
}

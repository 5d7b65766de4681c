//! The state of a task: the fold of its events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

use crate::event::{Accepted, Event, Failure, Kind, Output, Taken, Timestamp, Trigger};
use crate::id::{NodeName, RoleName, Seq, StepId, TaskId, Visit};

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

/// What a task has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Attempts begun.
    pub steps: u32,
    /// Prompt and output tokens.
    pub tokens: u64,
}

/// A visit that is not over.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// The attempt that runs, or the last one that failed.
    pub attempt: u32,
    /// Attempts that failed through the step's own doing; those cut off by a restart do not count.
    pub failures: u32,
    /// The nodes whose output made it ready; empty at the start.
    pub from: Vec<NodeName>,
    /// What it waits for.
    pub status: Status,
}

/// What a live visit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Its attempt runs.
    Running,
    /// Its attempt failed at this time; the next one is due so much later.
    Retry {
        /// When the attempt failed.
        at: Timestamp,
        /// How long to wait.
        after: Duration,
    },
}

/// What a task knows of one node.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Node {
    /// Visits begun.
    pub visits: u32,
    /// What its last finished visit gave.
    pub output: Option<Output>,
    /// Arrivals that each trigger it alone, oldest first, with the node they come from (`None`: the start).
    pub direct: VecDeque<Option<NodeName>>,
    /// Arrivals that its join counts, per source.
    pub arrivals: BTreeMap<NodeName, u32>,
    /// Rounds of its join that fired.
    pub rounds: u32,
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
    /// How long no daemon ran the task: what lies before each `resumed`. It counts against no limit.
    pub rested: Duration,
    /// The last event folded in.
    pub last: Seq,
    /// Where the task stands.
    pub phase: Phase,
    /// What it has used.
    pub spent: Spent,
    /// What it knows of its nodes.
    pub nodes: BTreeMap<NodeName, Node>,
    /// Visits that are not over.
    pub live: BTreeMap<Visit, Live>,
    /// How often each edge was taken, by node and place in `next`.
    pub taken: BTreeMap<(NodeName, u32), u32>,
    /// The node that went to `done` last.
    pub done: Option<NodeName>,
    /// The failure that no further attempt follows.
    pub fatal: Option<Failure>,
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
    /// A step that does not run ends.
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
        let first = Node { direct: VecDeque::from([None]), ..Node::default() };
        Ok(Self {
            task: event.task,
            accepted: accepted.clone(),
            since: event.at,
            at: event.at,
            rested: Duration::ZERO,
            last: event.seq,
            phase: Phase::Running,
            spent: Spent::default(),
            nodes: BTreeMap::from([(start.clone(), first)]),
            live: BTreeMap::new(),
            taken: BTreeMap::new(),
            done: None,
            fatal: None,
        })
    }

    /// The state after all these events, the first of which is `accepted`.
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a Event>, start: &NodeName) -> Result<Self, Broken> {
        let mut events = events.into_iter();
        let mut state = Self::begin(events.next().ok_or(Broken::NotAccepted)?, start)?;
        events.try_for_each(|event| state.apply(event))?;
        Ok(state)
    }

    /// Folds the next event in, or changes nothing.
    pub fn apply(&mut self, event: &Event) -> Result<(), Broken> {
        if event.seq != self.last.next() {
            return Err(Broken::Gap { last: self.last.0, got: event.seq.0 });
        }
        if self.phase != Phase::Running {
            return Err(Broken::AfterEnd(event.seq.0));
        }
        match &event.kind {
            Kind::Accepted(_) => return Err(Broken::NotAccepted),
            Kind::Routed { .. } => {}
            Kind::StepStarted { step, trigger, .. } => self.started(step, *trigger),
            Kind::StepFinished { step, output, usage, took, .. } => {
                self.ended(step)?;
                self.spent.tokens += usage.total();
                self.arrive(&step.visit.node, output, took);
            }
            Kind::StepFailed { step, failure, retry_after } => {
                self.failed(step, failure, *retry_after, event.at)?;
            }
            Kind::Resumed => {
                self.rested += Duration::from_millis(event.at.0.saturating_sub(self.at.0));
                self.resumed(event.at);
            }
            Kind::Completed { output } => self.phase = Phase::Completed(output.clone()),
            Kind::Failed { failure } => self.phase = Phase::Failed(failure.clone()),
            Kind::Cancelled { reason } => self.phase = Phase::Cancelled(reason.clone()),
        }
        self.last = event.seq;
        self.at = event.at;
        Ok(())
    }

    /// How long the task has been run so far, which is what its graph's limit of time counts.
    pub fn age(&self, now: Timestamp) -> Duration {
        Duration::from_millis(now.0.saturating_sub(self.since.0)).saturating_sub(self.rested)
    }

    /// What CEL and Jinja call `task`.
    pub fn task_value(&self) -> Value {
        json!({"id": self.task.to_string(), "graph": self.accepted.graph.as_str(), "input": self.accepted.input})
    }

    /// What CEL and Jinja call `nodes`.
    pub fn nodes_value(&self) -> Value {
        let finished = self.nodes.iter().filter_map(|(name, node)| Some((name, node.output.as_ref()?)));
        finished
            .map(|(name, output)| (name.to_string(), output_value(output)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// The text that a visit reads unless its role says otherwise: what the nodes before it gave, or the task's input.
    pub fn input_of(&self, visit: &Visit) -> String {
        let from = self.live.get(visit).map_or(&[][..], |live| &live.from);
        let texts: Vec<&str> =
            from.iter().filter_map(|node| Some(self.nodes.get(node)?.output.as_ref()?.text.as_str())).collect();
        if texts.is_empty() { self.accepted.input.clone() } else { texts.join("\n\n") }
    }

    /// The role that a router node chose last.
    pub fn chosen_by(&self, router: &NodeName) -> Option<&RoleName> {
        self.nodes.get(router)?.output.as_ref()?.role.as_ref()
    }

    fn started(&mut self, step: &StepId, trigger: Option<Trigger>) {
        self.spent.steps += 1;
        let Some(trigger) = trigger else {
            if let Some(live) = self.live.get_mut(&step.visit) {
                live.attempt = step.attempt;
                live.status = Status::Running;
            }
            return;
        };
        let node = self.nodes.entry(step.visit.node.clone()).or_default();
        node.visits = step.visit.number;
        let from = match trigger {
            Trigger::Direct => node.direct.pop_front().flatten().into_iter().collect(),
            Trigger::Round => {
                node.rounds += 1;
                let round = node.rounds;
                node.arrivals.iter().filter(|(_, n)| **n >= round).map(|(name, _)| name.clone()).collect()
            }
        };
        let live = Live { attempt: step.attempt, failures: 0, from, status: Status::Running };
        self.live.insert(step.visit.clone(), live);
    }

    fn running(&mut self, step: &StepId) -> Result<&mut Live, Broken> {
        let runs = |live: &Live| live.attempt == step.attempt && live.status == Status::Running;
        let live = self.live.get_mut(&step.visit).filter(|live| runs(live));
        live.ok_or_else(|| Broken::NotRunning(step.clone()))
    }

    fn ended(&mut self, step: &StepId) -> Result<(), Broken> {
        self.running(step)?;
        self.live.remove(&step.visit);
        Ok(())
    }

    fn failed(
        &mut self,
        step: &StepId,
        failure: &Failure,
        retry_after: Option<Duration>,
        at: Timestamp,
    ) -> Result<(), Broken> {
        let live = self.running(step)?;
        if let Some(after) = retry_after {
            live.failures += 1;
            live.status = Status::Retry { at, after };
        } else {
            self.live.remove(&step.visit);
            self.fatal = Some(failure.clone());
        }
        Ok(())
    }

    /// Attempts that ran when the daemon stopped begin anew at once; they do not count as failed.
    fn resumed(&mut self, at: Timestamp) {
        for live in self.live.values_mut().filter(|live| live.status == Status::Running) {
            live.status = Status::Retry { at, after: Duration::ZERO };
        }
    }

    fn arrive(&mut self, from: &NodeName, output: &Output, took: &[Taken]) {
        self.nodes.entry(from.clone()).or_default().output = Some(output.clone());
        for taken in took {
            *self.taken.entry((from.clone(), taken.edge)).or_default() += 1;
            let Some(to) = &taken.to else {
                self.done = Some(from.clone());
                continue;
            };
            let node = self.nodes.entry(to.clone()).or_default();
            if taken.direct {
                node.direct.push_back(Some(from.clone()));
            } else {
                *node.arrivals.entry(from.clone()).or_default() += 1;
            }
        }
    }
}

impl Node {
    /// The sources that have arrived for the next round of its join.
    pub fn arrived(&self) -> BTreeSet<&NodeName> {
        self.arrivals.iter().filter(|(_, n)| **n > self.rounds).map(|(name, _)| name).collect()
    }
}

pub(crate) fn output_value(output: &Output) -> Value {
    json!({
        "text": output.text,
        "output": output.json.clone().unwrap_or_else(|| output.text.clone().into()),
        "role": output.role.as_ref().map(RoleName::as_str),
    })
}

//! The next actions of a task: pure functions of a graph and a state.

mod transition;

use std::time::Duration;

use crate::event::{Failure, FailureCode, Output, ResultSource, Timestamp, Trigger};
use crate::graph::{Graph, Join, Node, NodeKind, ReplaySafety};
use crate::id::{NodeName, PathSegment, StepId, Visit};
use crate::state::{ActiveVisit, MapRun, NestedRun, Phase, Scope, State, VisitStatus};

pub use transition::{Transition, TransitionError, failure_edges, scope_values, transition, unconditional_edges};

/// The next action of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum NextAction {
    /// Start this attempt.
    StartStep {
        /// The attempt.
        step: StepId,
        /// What made the node ready; `None` for a retry and for an item.
        trigger: Option<Trigger>,
    },
    /// Finish this step, whose nested work is done.
    FinishStep {
        /// The step.
        step: StepId,
        /// The output of the nested work.
        output: Output,
        /// Whether the output is that of a run or the graph's fallback.
        source: ResultSource,
    },
    /// Fail this step.
    FailStep {
        /// The step.
        step: StepId,
        /// The failure.
        failure: Failure,
    },
    /// End this step, whose answer deadline has passed.
    ExpireQuestion(StepId),
    /// Decide again after this time, when something is due.
    Wait(Duration),
    /// Complete the task with this result.
    CompleteTask {
        /// The result.
        output: Output,
        /// The failure that the graph's fallback replaced.
        instead_of: Option<Failure>,
    },
    /// Fail the task.
    FailTask(Failure),
}

/// All actions that are possible now, in a deterministic order; none for a task that has ended. `now` is the time of the run,
/// that of its events, which counts for limits and retries; `wall` is the time of people, which counts for the deadlines of
/// questions.
pub fn decide(graph: &Graph, state: &State, now: Timestamp, wall: Timestamp) -> Vec<NextAction> {
    if state.phase != Phase::Running {
        return Vec::new();
    }
    let mut decider = Decider { now, wall, age: state.age(now), parents: Vec::new(), actions: Vec::new() };
    match decider.scope(graph, &state.root) {
        Ok(None) => decider.actions,
        Ok(Some(output)) => vec![NextAction::CompleteTask { output, instead_of: None }],
        Err(failure) => vec![match graph.fallback() {
            Some(text) => NextAction::CompleteTask { output: Output::text(text), instead_of: Some(failure) },
            None => NextAction::FailTask(failure),
        }],
    }
}

/// The traversal of a task's active visits at one moment, which collects the actions.
struct Decider {
    now: Timestamp,
    wall: Timestamp,
    age: Duration,
    /// The visits of the sub-graphs around the current position.
    parents: Vec<PathSegment>,
    actions: Vec<NextAction>,
}

impl Decider {
    /// Collects the actions of a run of a graph; returns its result if it has ended.
    fn scope(&mut self, graph: &Graph, scope: &Scope) -> Result<Option<Output>, Failure> {
        if let Some(failure) = scope.fatal.clone().or_else(|| self.over_limit(graph, scope)) {
            return Err(failure);
        }
        let before = self.actions.len();
        for name in &scope.ready {
            self.ready(graph, scope, name);
        }
        for (segment, active) in &scope.active {
            if let Some(node) = graph.node(&segment.node) {
                self.active_visit(node, segment, active);
            }
        }
        // Each start counts against the limit, those proposed together too.
        let starts =
            self.actions[before..].iter().filter(|action| matches!(action, NextAction::StartStep { .. })).count();
        let limit = graph.limits().steps;
        if starts > limit.saturating_sub(scope.usage.steps) as usize {
            return Err(Failure::new(
                FailureCode::LimitSteps,
                format!("the graph's limit of {limit} steps is used up"),
            ));
        }
        if self.actions.len() == before && scope.active.is_empty() {
            return end(graph, scope).map(Some);
        }
        Ok(None)
    }

    fn over_limit(&self, graph: &Graph, scope: &Scope) -> Option<Failure> {
        let limits = graph.limits();
        if scope.usage.tokens > limits.tokens {
            let message = format!("{} tokens are used, the graph's limit is {}", scope.usage.tokens, limits.tokens);
            return Some(Failure::new(FailureCode::LimitTokens, message));
        }
        (self.age.saturating_sub(scope.started_age) >= limits.time)
            .then(|| Failure::new(FailureCode::LimitTime, format!("the graph's limit of {:?} is used up", limits.time)))
    }

    fn step(&self, segment: PathSegment, attempt: u32) -> StepId {
        StepId { visit: Visit::new(&self.parents, segment), attempt }
    }

    fn ready(&mut self, graph: &Graph, scope: &Scope, name: &NodeName) {
        let Some(node) = scope.nodes.get(name) else { return };
        let mut number = node.visits;
        let mut start = |trigger| {
            number += 1;
            let step = self.step(PathSegment { node: name.clone(), number, item: None }, 1);
            self.actions.push(NextAction::StartStep { step, trigger: Some(trigger) });
        };
        (0..node.direct.len()).for_each(|_| start(Trigger::Direct));
        // Later rounds wait until this one is journalled: one at a time keeps the fold simple.
        if required_arrivals(graph, name).is_some_and(|required| node.arrived_count >= required) {
            start(Trigger::Round);
        }
    }

    /// Collects the actions of a visit that has not ended.
    fn active_visit(&mut self, node: &Node, segment: &PathSegment, active: &ActiveVisit) {
        let restart = |decider: &Self| NextAction::StartStep {
            step: decider.step(segment.clone(), active.attempt + 1),
            trigger: None,
        };
        let action = match (active.status, &active.nested) {
            (VisitStatus::Running, None) | (VisitStatus::AwaitingAnswer { deadline: None }, _) => return,
            (VisitStatus::Running, Some(NestedRun::Items(items))) => return self.items(node, segment, active, items),
            (VisitStatus::Running, Some(NestedRun::Graph(scope))) => {
                return self.subgraph(node, segment, active, scope);
            }
            (VisitStatus::Interrupted, _) if node.replay_safety == ReplaySafety::AtMostOnce => {
                let message = format!(
                    "the daemon stopped while node `{}` ran; its effect may have happened, so it is not started again \
                     (`effect: at_most_once`)",
                    segment.node
                );
                let step = self.step(segment.clone(), active.attempt);
                NextAction::FailStep { step, failure: Failure::new(FailureCode::Interrupted, message) }
            }
            (VisitStatus::Interrupted, _) => restart(self),
            (VisitStatus::Retrying { failed_at, delay }, _) => {
                match time_until(self.now, failed_at.0 + delay.as_millis() as u64) {
                    Some(wait) => NextAction::Wait(wait),
                    None => restart(self),
                }
            }
            (VisitStatus::AwaitingAnswer { deadline: Some(deadline) }, _) => match time_until(self.wall, deadline.0) {
                Some(wait) => NextAction::Wait(wait),
                None => NextAction::ExpireQuestion(self.step(segment.clone(), active.attempt)),
            },
        };
        self.actions.push(action);
    }

    fn items(&mut self, node: &Node, segment: &PathSegment, active: &ActiveVisit, items: &MapRun) {
        let step = self.step(segment.clone(), active.attempt);
        if let Some(failure) = items.fatal.clone() {
            return self.actions.push(NextAction::FailStep { step, failure });
        }
        if items.remaining == 0 {
            let output = items.collected().0;
            return self.actions.push(NextAction::FinishStep { step, output, source: ResultSource::Run });
        }
        let item_segment = |item: u32| PathSegment { item: Some(item), ..segment.clone() };
        for (item, active) in &items.active {
            self.active_visit(node, &item_segment(*item), active);
        }
        let parallel = node.for_each.as_ref().map_or(1, |each| each.parallel as usize);
        let free = parallel.saturating_sub(items.active.len());
        for item in (items.next_item..items.list.len() as u32).take(free) {
            self.actions.push(NextAction::StartStep { step: self.step(item_segment(item), 1), trigger: None });
        }
    }

    fn subgraph(&mut self, node: &Node, segment: &PathSegment, active: &ActiveVisit, scope: &Scope) {
        let NodeKind::Graph { graph, .. } = &node.kind else { return };
        let step = self.step(segment.clone(), active.attempt);
        let elapsed = self.age.saturating_sub(active.started_age);
        if let Some(timeout) = node.policy.timeout.filter(|timeout| elapsed >= *timeout) {
            let failure = Failure::new(
                FailureCode::Timeout,
                format!("the sub-graph took longer than {timeout:?}, its node's timeout"),
            );
            return self.actions.push(NextAction::FailStep { step, failure });
        }
        let before = self.actions.len();
        self.parents.push(segment.clone());
        let result = self.scope(graph, scope);
        self.parents.pop();
        let action = match result {
            // Its clock is stopped while it waits for human answers only.
            Ok(None) if !scope.is_awake() => return,
            Ok(None) => {
                let limit = node.policy.timeout.map_or(graph.limits().time, |timeout| timeout.min(graph.limits().time));
                NextAction::Wait(limit.saturating_sub(elapsed))
            }
            Ok(Some(output)) => NextAction::FinishStep { step, output, source: ResultSource::Run },
            Err(failure) => {
                // The steps that would have started inside it do not.
                self.actions.truncate(before);
                match graph.fallback() {
                    Some(text) => {
                        NextAction::FinishStep { step, output: Output::text(text), source: ResultSource::Fallback }
                    }
                    None => {
                        let message = format!("graph `{}`: {}", graph.name(), failure.message);
                        NextAction::FailStep { step, failure: Failure { message, ..failure } }
                    }
                }
            }
        };
        self.actions.push(action);
    }
}

/// The time until a moment in milliseconds, if it is in the future.
fn time_until(now: Timestamp, due: u64) -> Option<Duration> {
    due.checked_sub(now.0).filter(|millis| *millis > 0).map(Duration::from_millis)
}

/// The number of sources that must have arrived before the join of a node fires.
fn required_arrivals(graph: &Graph, name: &NodeName) -> Option<usize> {
    match graph.node(name)?.join? {
        Join::All => graph.sources(name).map(std::collections::BTreeSet::len),
        Join::Quorum(n) => Some(n as usize),
        Join::Any => None,
    }
}

/// The end of a run in which nothing runs and nothing can start: it is done, or a join cannot be satisfied.
fn end(graph: &Graph, scope: &Scope) -> Result<Output, Failure> {
    let stuck = scope.nodes.iter().find(|(name, node)| {
        required_arrivals(graph, name)
            .is_some_and(|required| node.arrived_count > 0 && node.arrived_count < required)
            // Arrivals after a quorum has fired are no waiting round.
            && !(matches!(graph.node(name).and_then(|n| n.join), Some(Join::Quorum(_))) && node.rounds > 0)
    });
    if let Some((name, node)) = stuck {
        let arrived: Vec<_> = node.arrived().map(NodeName::as_str).collect();
        let message = format!(
            "node `{name}` waits for {} arrivals and has those of {}; the other branches took other edges",
            required_arrivals(graph, name).unwrap_or(0),
            arrived.join(", ")
        );
        return Err(Failure::new(FailureCode::JoinStuck, message));
    }
    let last = graph.result().or(scope.done.as_ref());
    let output = last.and_then(|name| scope.nodes.get(name)?.output.as_deref().cloned());
    output.ok_or_else(|| {
        let none = || Failure::new(FailureCode::NoEdge, "the graph ended without a result".to_owned());
        scope.cancelled.clone().unwrap_or_else(none)
    })
}

#[cfg(test)]
mod tests;

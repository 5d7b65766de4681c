//! What comes next: pure functions of a graph and a state.

mod leave;

use std::time::Duration;

use crate::event::{Code, Failure, Output, Source, Timestamp, Trigger};
use crate::graph::{Effect, Graph, Join, Node, Work};
use crate::id::{NodeName, Place, StepId, Visit};
use crate::state::{Items, Live, Phase, Running, Scope, State, Status};

pub use leave::{NoWay, Way, certain, leave, rescue, values};

/// What a task does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Begin this attempt.
    Start {
        /// Which one.
        step: StepId,
        /// What made the node ready; `None` for a further attempt and for an item.
        trigger: Option<Trigger>,
    },
    /// End this step, inside of which all is done.
    Finish {
        /// Which one.
        step: StepId,
        /// What was given inside of it.
        output: Output,
        /// Whether that was its graph's fallback.
        source: Source,
    },
    /// End this step as failed.
    Break {
        /// Which one.
        step: StepId,
        /// Why.
        failure: Failure,
    },
    /// End this step, whose question nobody answered in time.
    Lapse(StepId),
    /// Look again after this time, for something that is due then.
    Wait(Duration),
    /// End with this result.
    Complete {
        /// The result.
        output: Output,
        /// The failure in whose place the graph's fallback answers.
        instead_of: Option<Failure>,
    },
    /// End without one.
    Fail(Failure),
}

/// All that can be done now, in a fixed order. A task that is over has nothing left to do.
pub fn decide(graph: &Graph, state: &State, now: Timestamp) -> Vec<Next> {
    if state.phase != Phase::Running {
        return Vec::new();
    }
    let mut look = Look { now, age: state.age(now), within: Vec::new(), next: Vec::new() };
    match look.scope(graph, &state.root) {
        Ok(None) => look.next,
        Ok(Some(output)) => vec![Next::Complete { output, instead_of: None }],
        Err(failure) => vec![match graph.fallback() {
            Some(text) => Next::Complete { output: Output::text(text), instead_of: Some(failure) },
            None => Next::Fail(failure),
        }],
    }
}

/// A look at a task at one moment.
struct Look {
    now: Timestamp,
    age: Duration,
    /// The visits of sub-graphs around what is looked at.
    within: Vec<Place>,
    next: Vec<Next>,
}

impl Look {
    /// What a run of a graph does next is noted; if it is over, this is its result.
    fn scope(&mut self, graph: &Graph, scope: &Scope) -> Result<Option<Output>, Failure> {
        if let Some(failure) = scope.fatal.clone().or_else(|| self.over_limit(graph, scope)) {
            return Err(failure);
        }
        let before = self.next.len();
        for name in &scope.due {
            self.ready(graph, scope, name);
        }
        for (place, live) in &scope.live {
            if let Some(node) = graph.node(&place.node) {
                self.live(node, place, live);
            }
        }
        // Each start counts against the limit, those proposed together too.
        let starts = self.next[before..].iter().filter(|next| matches!(next, Next::Start { .. })).count();
        let limit = graph.limits().steps;
        if starts > limit.saturating_sub(scope.spent.steps) as usize {
            return Err(failure(Code::LimitSteps, format!("the graph's limit of {limit} steps is used up")));
        }
        if self.next.len() == before && scope.live.is_empty() {
            return end(graph, scope).map(Some);
        }
        Ok(None)
    }

    fn over_limit(&self, graph: &Graph, scope: &Scope) -> Option<Failure> {
        let limits = graph.limits();
        if scope.spent.tokens > limits.tokens {
            let message = format!("{} tokens are used, the graph's limit is {}", scope.spent.tokens, limits.tokens);
            return Some(failure(Code::LimitTokens, message));
        }
        (self.age.saturating_sub(scope.began) >= limits.time)
            .then(|| failure(Code::LimitTime, format!("the graph's limit of {:?} is used up", limits.time)))
    }

    fn step(&self, place: Place, attempt: u32) -> StepId {
        StepId { visit: Visit::new(&self.within, place), attempt }
    }

    fn ready(&mut self, graph: &Graph, scope: &Scope, name: &NodeName) {
        let Some(node) = scope.nodes.get(name) else { return };
        let mut number = node.visits;
        let mut start = |trigger| {
            number += 1;
            let step = self.step(Place { node: name.clone(), number, item: None }, 1);
            self.next.push(Next::Start { step, trigger: Some(trigger) });
        };
        (0..node.direct.len()).for_each(|_| start(Trigger::Direct));
        // Later rounds wait for this one to be journalled: one at a time keeps the fold simple.
        if needed(graph, name).is_some_and(|needed| node.came >= needed) {
            start(Trigger::Round);
        }
    }

    /// What a visit that is not over needs.
    fn live(&mut self, node: &Node, place: &Place, live: &Live) {
        let again = |look: &Self| Next::Start { step: look.step(place.clone(), live.attempt + 1), trigger: None };
        let next = match (live.status, &live.inner) {
            (Status::Running, None) | (Status::Asked { deadline: None }, _) => return,
            (Status::Running, Some(Running::Items(items))) => return self.items(node, place, live, items),
            (Status::Running, Some(Running::Graph(scope))) => return self.graph(node, place, live, scope),
            (Status::Cut, _) if node.effect == Effect::AtMostOnce => {
                let message = format!(
                    "the daemon stopped while node `{}` ran; what it does may have happened, so it is not begun again \
                     (`effect: at_most_once`)",
                    place.node
                );
                let step = self.step(place.clone(), live.attempt);
                Next::Break { step, failure: failure(Code::Interrupted, message) }
            }
            (Status::Cut, _) => again(self),
            (Status::Retry { at, after }, _) => match left(self.now, at.0 + after.as_millis() as u64) {
                Some(left) => Next::Wait(left),
                None => again(self),
            },
            (Status::Asked { deadline: Some(deadline) }, _) => match left(self.now, deadline.0) {
                Some(left) => Next::Wait(left),
                None => Next::Lapse(self.step(place.clone(), live.attempt)),
            },
        };
        self.next.push(next);
    }

    fn items(&mut self, node: &Node, place: &Place, live: &Live, items: &Items) {
        let whole = self.step(place.clone(), live.attempt);
        if let Some(failure) = items.fatal.clone() {
            return self.next.push(Next::Break { step: whole, failure });
        }
        if items.left == 0 {
            let output = items.gathered().0;
            return self.next.push(Next::Finish { step: whole, output, source: Source::Run });
        }
        let at = |item: u32| Place { item: Some(item), ..place.clone() };
        for (item, live) in &items.live {
            self.live(node, &at(*item), live);
        }
        let parallel = node.each.as_ref().map_or(1, |each| each.parallel as usize);
        let room = parallel.saturating_sub(items.live.len());
        for item in (items.next..items.list.len() as u32).take(room) {
            self.next.push(Next::Start { step: self.step(at(item), 1), trigger: None });
        }
    }

    fn graph(&mut self, node: &Node, place: &Place, live: &Live, scope: &Scope) {
        let Work::Graph { graph, .. } = &node.work else { return };
        let (step, took) = (self.step(place.clone(), live.attempt), self.age.saturating_sub(live.began));
        if let Some(timeout) = node.effort.timeout.filter(|timeout| took >= *timeout) {
            let failure =
                failure(Code::Timeout, format!("the sub-graph took longer than {timeout:?}, its node's timeout"));
            return self.next.push(Next::Break { step, failure });
        }
        let before = self.next.len();
        self.within.push(place.clone());
        let ended = self.scope(graph, scope);
        self.within.pop();
        let next = match ended {
            // While nobody but people is waited for inside of it, its clock stands still.
            Ok(None) if !scope.is_awake() => return,
            Ok(None) => {
                let limit = node.effort.timeout.map_or(graph.limits().time, |timeout| timeout.min(graph.limits().time));
                Next::Wait(limit.saturating_sub(took))
            }
            Ok(Some(output)) => Next::Finish { step, output, source: Source::Run },
            Err(failure) => {
                // What would have begun inside of it does not.
                self.next.truncate(before);
                match graph.fallback() {
                    Some(text) => Next::Finish { step, output: Output::text(text), source: Source::Fallback },
                    None => {
                        let message = format!("graph `{}`: {}", graph.name(), failure.message);
                        Next::Break { step, failure: Failure { message, ..failure } }
                    }
                }
            }
        };
        self.next.push(next);
    }
}

/// How long it is until this moment, if it lies ahead.
fn left(now: Timestamp, due: u64) -> Option<Duration> {
    due.checked_sub(now.0).filter(|left| *left > 0).map(Duration::from_millis)
}

fn failure(code: Code, message: String) -> Failure {
    Failure { code, message, step: None }
}

/// How many sources must have arrived before the join of a node fires.
fn needed(graph: &Graph, name: &NodeName) -> Option<usize> {
    match graph.node(name)?.join? {
        Join::All => graph.sources(name).map(std::collections::BTreeSet::len),
        Join::Quorum(n) => Some(n as usize),
        Join::Any => None,
    }
}

/// Nothing runs and nothing can start: either the run is done, or a join waits in vain.
fn end(graph: &Graph, scope: &Scope) -> Result<Output, Failure> {
    let waiting = scope.nodes.iter().find(|(name, node)| {
        needed(graph, name).is_some_and(|needed| node.came > 0 && node.came < needed)
            // What a quorum left over is no round that waits.
            && !(matches!(graph.node(name).and_then(|n| n.join), Some(Join::Quorum(_))) && node.rounds > 0)
    });
    if let Some((name, node)) = waiting {
        let came: Vec<_> = node.arrived().map(NodeName::as_str).collect();
        let message = format!(
            "node `{name}` waits for {} arrivals and has those of {}; the others took another way",
            needed(graph, name).unwrap_or(0),
            came.join(", ")
        );
        return Err(failure(Code::JoinStuck, message));
    }
    let last = graph.result().or(scope.done.as_ref());
    let output = last.and_then(|name| scope.nodes.get(name)?.output.as_deref().cloned());
    output.ok_or_else(|| {
        let none = || failure(Code::NoEdge, "the graph ended without a result".to_owned());
        scope.cancelled.clone().unwrap_or_else(none)
    })
}

#[cfg(test)]
mod tests;

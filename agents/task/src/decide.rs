//! What comes next: pure functions of a graph and a state.

use std::time::Duration;

use crate::condition::{self, Scope};
use crate::event::{Code, Failure, Output, Taken, Timestamp, Trigger};
use crate::graph::{Edge, Graph, Join};
use crate::id::{NodeName, StepId, Visit};
use crate::state::{Phase, State, Status};

/// What a task does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Begin this attempt.
    Start {
        /// Which one.
        step: StepId,
        /// What made the node ready; `None` for a further attempt.
        trigger: Option<Trigger>,
    },
    /// Look again after this time, for an attempt that is due then.
    Wait(Duration),
    /// End with this result.
    Complete(Output),
    /// End without one.
    Fail(Failure),
}

/// Why a node cannot be left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    /// A condition failed on this output.
    #[error("node `{node}`: {source}")]
    Condition {
        /// The node that was left.
        node: NodeName,
        /// What CEL says.
        source: condition::Error,
    },
    /// No condition holds and no edge is unconditional.
    #[error("node `{0}`: no condition of its `next` holds and none of its edges is unconditional")]
    NoEdge(NodeName),
}

impl NoWay {
    /// The kind of failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Condition { .. } => Code::Condition,
            Self::NoEdge(_) => Code::NoEdge,
        }
    }
}

/// All that can be done now, in a fixed order. A task that is over has nothing left to do.
pub fn decide(graph: &Graph, state: &State, now: Timestamp) -> Vec<Next> {
    if state.phase != Phase::Running {
        return Vec::new();
    }
    if let Some(failure) = state.fatal.clone().or_else(|| over_limit(graph, state, now)) {
        return vec![Next::Fail(failure)];
    }
    let mut next = ready(graph, state);
    next.extend(retries(state, now));
    // Each start counts against the limit, those proposed together too.
    let left = graph.limits().steps.saturating_sub(state.spent.steps) as usize;
    if next.iter().filter(|n| matches!(n, Next::Start { .. })).count() > left {
        return vec![Next::Fail(failure(
            Code::LimitSteps,
            format!("the graph's limit of {} steps is used up", graph.limits().steps),
        ))];
    }
    if next.is_empty() && state.live.is_empty() {
        next.push(end(graph, state));
    }
    next
}

/// The edges that are taken when `node` has given `output`: the first conditional one that holds and is not used up, or
/// else all unconditional ones that are not used up.
pub fn leave(graph: &Graph, state: &State, node: &NodeName, output: &Output) -> Result<Vec<Taken>, NoWay> {
    let edges = graph.node(node).map_or(&[][..], |n| &n.next);
    let open = |at: usize, edge: &Edge| {
        let taken = state.taken.get(&(node.clone(), at as u32)).copied().unwrap_or(0);
        edge.at_most.is_none_or(|most| taken < most)
    };
    let take =
        |(at, edge): (usize, &Edge)| Taken { edge: at as u32, to: edge.to.clone(), direct: graph.is_direct(edge) };
    let (task, mut nodes) = (state.task_value(), state.nodes_value());
    let own = crate::state::output_value(output);
    nodes[node.as_str()] = own.clone();
    let scope = Scope { task: &task, nodes: &nodes, output: &own["output"] };
    for (at, edge) in edges.iter().enumerate().filter(|(at, edge)| open(*at, edge)) {
        let Some(when) = &edge.when else { continue };
        if when.holds(scope).map_err(|source| NoWay::Condition { node: node.clone(), source })? {
            return Ok(vec![take((at, edge))]);
        }
    }
    let free = edges.iter().enumerate().filter(|(at, edge)| edge.when.is_none() && open(*at, edge));
    let taken: Vec<Taken> = free.map(take).collect();
    if taken.is_empty() { Err(NoWay::NoEdge(node.clone())) } else { Ok(taken) }
}

fn failure(code: Code, message: String) -> Failure {
    Failure { code, message, step: None }
}

fn over_limit(graph: &Graph, state: &State, now: Timestamp) -> Option<Failure> {
    let limits = graph.limits();
    if state.spent.tokens > limits.tokens {
        let message = format!("{} tokens are used, the graph's limit is {}", state.spent.tokens, limits.tokens);
        return Some(failure(Code::LimitTokens, message));
    }
    (state.age(now) >= limits.time)
        .then(|| failure(Code::LimitTime, format!("the graph's limit of {:?} is used up", limits.time)))
}

fn ready(graph: &Graph, state: &State) -> Vec<Next> {
    let mut next = Vec::new();
    for (name, node) in &state.nodes {
        let mut number = node.visits;
        let mut start = |trigger| {
            number += 1;
            let visit = Visit { node: name.clone(), number };
            next.push(Next::Start { step: StepId { visit, attempt: 1 }, trigger: Some(trigger) });
        };
        (0..node.direct.len()).for_each(|_| start(Trigger::Direct));
        // Later rounds wait for this one to be journalled: one at a time keeps the fold simple.
        if needed(graph, name).is_some_and(|needed| node.arrived().len() >= needed) {
            start(Trigger::Round);
        }
    }
    next
}

/// How many sources must have arrived before the join of a node fires.
fn needed(graph: &Graph, name: &NodeName) -> Option<usize> {
    match graph.node(name)?.join? {
        Join::All => graph.sources(name).map(std::collections::BTreeSet::len),
        Join::Quorum(n) => Some(n as usize),
        Join::Any => None,
    }
}

fn retries(state: &State, now: Timestamp) -> Vec<Next> {
    let waits = state.live.iter().filter_map(|(visit, live)| match live.status {
        Status::Retry { at, after } => Some((visit, live, at.0 + after.as_millis() as u64)),
        Status::Running => None,
    });
    waits
        .map(|(visit, live, due)| match due.checked_sub(now.0) {
            None | Some(0) => {
                Next::Start { step: StepId { visit: visit.clone(), attempt: live.attempt + 1 }, trigger: None }
            }
            Some(left) => Next::Wait(Duration::from_millis(left)),
        })
        .collect()
}

/// Nothing runs and nothing can start: either the task is done, or a join waits in vain.
fn end(graph: &Graph, state: &State) -> Next {
    let waiting = state.nodes.iter().find(|(name, node)| {
        needed(graph, name).is_some_and(|needed| !node.arrived().is_empty() && node.arrived().len() < needed)
            // What a quorum left over is no round that waits.
            && !(matches!(graph.node(name).and_then(|n| n.join), Some(Join::Quorum(_))) && node.rounds > 0)
    });
    if let Some((name, node)) = waiting {
        let came: Vec<_> = node.arrived().iter().map(|n| n.as_str()).collect();
        let message = format!(
            "node `{name}` waits for {} arrivals and has those of {}; the others took another way",
            needed(graph, name).unwrap_or(0),
            came.join(", ")
        );
        return Next::Fail(failure(Code::JoinStuck, message));
    }
    let last = graph.result().or(state.done.as_ref());
    match last.and_then(|name| state.nodes.get(name)?.output.clone()) {
        Some(output) => Next::Complete(output),
        None => Next::Fail(failure(Code::NoEdge, "the task ended without a result".to_owned())),
    }
}

#[cfg(test)]
mod tests;

//! The ways from a node.

use std::sync::Arc;

use crate::condition::{self, Outputs};
use crate::event::{Code, Output, Taken, Written, as_text};
use crate::graph::{Edge, Graph, Node, Reduce};
use crate::id::{NodeName, StepId, ValueName, Visit};
use crate::state::{Items, Scope, State, output_value};

/// Where a step's output goes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Way {
    /// The edges that are taken.
    pub took: Vec<Taken>,
    /// The value of the graph that it goes into.
    pub wrote: Option<Written>,
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
    /// Only objects can be merged.
    #[error("node `{node}` gave no JSON object, and `{value}` merges objects: {given}")]
    Merge {
        /// The node that was left.
        node: NodeName,
        /// The value that it writes.
        value: ValueName,
        /// How its output begins.
        given: String,
    },
    /// A fault of ours.
    #[error("step `{0}` does not run")]
    NotThere(StepId),
}

impl NoWay {
    /// The kind of failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Condition { .. } => Code::Condition,
            Self::NoEdge(_) => Code::NoEdge,
            Self::Merge { .. } => Code::OutputInvalid,
            Self::NotThere(_) => Code::Internal,
        }
    }
}

/// Where the output of a step goes: over the first conditional edge that holds and is not used up, or else all unconditional
/// ones that are not used up; from an item nowhere.
pub fn leave(graph: &Graph, state: &State, step: &StepId, output: &Output) -> Result<Way, NoWay> {
    if step.visit.item.is_some() {
        return Ok(Way::default());
    }
    let name = &step.visit.node;
    let place = state.scope(&step.visit.within).zip(graph.inner(&step.visit.within));
    let found = place.and_then(|(scope, graph)| Some((scope, graph, graph.node(name)?)));
    let (scope, graph, node) = found.ok_or_else(|| NoWay::NotThere(step.clone()))?;
    let roles = state.live(&step.visit).and_then(|live| live.items()).map(Items::gathered);
    let own = Arc::new(output_value(output, &roles.map(|(_, roles)| roles).unwrap_or_default()));
    let wrote = node.write.as_ref().and_then(|value| Some((value, *graph.values().get(value)?)));
    if let Some((value, how)) = wrote
        && !Reduce::takes(how, &own["output"])
    {
        let given = as_text(&own["output"]).chars().take(80).collect();
        return Err(NoWay::Merge { node: name.clone(), value: value.clone(), given });
    }
    let wrote = wrote.map(|(value, how)| Written { value: value.clone(), how });
    let held = match node.next.iter().any(|edge| edge.when.is_some()) {
        true => first(graph, scope, name, node, &own)?,
        false => None,
    };
    if let Some(taken) = held {
        return Ok(Way { took: vec![taken], wrote });
    }
    let free = open(scope, name, node).filter(|(_, edge)| edge.when.is_none());
    let took: Vec<Taken> = free.map(|(at, edge)| take(graph, at, edge)).collect();
    if took.is_empty() { Err(NoWay::NoEdge(name.clone())) } else { Ok(Way { took, wrote }) }
}

/// The first conditional edge that holds.
fn first(
    graph: &Graph,
    scope: &Scope,
    name: &NodeName,
    node: &Node,
    own: &Arc<serde_json::Value>,
) -> Result<Option<Taken>, NoWay> {
    let mut nodes: Outputs = Outputs::clone(&scope.outputs);
    nodes.insert(name.clone(), own.clone());
    let values = values(graph, scope);
    let seen = condition::Scope { task: &scope.task, nodes: &nodes, values: &values, output: &own["output"] };
    for (at, edge) in open(scope, name, node) {
        let Some(when) = &edge.when else { continue };
        if when.holds(seen).map_err(|source| NoWay::Condition { node: name.clone(), source })? {
            return Ok(Some(take(graph, at, edge)));
        }
    }
    Ok(None)
}

/// What CEL and Jinja call `values` in a run of a graph: those that nothing was written into are there too.
pub fn values(graph: &Graph, scope: &Scope) -> Arc<condition::Values> {
    let mut values = scope.values.clone();
    for (name, how) in graph.values().iter().filter(|(name, _)| !scope.values.contains_key(*name)) {
        Arc::make_mut(&mut values).insert(name.clone(), Arc::new(how.empty()));
    }
    values
}

/// The way on failure from a visit that has failed for good; none from an item.
pub fn rescue(graph: &Graph, state: &State, visit: &Visit) -> Vec<Taken> {
    let way = || {
        let (scope, graph) = (state.scope(&visit.within)?, graph.inner(&visit.within)?);
        let node = graph.node(&visit.node)?;
        let (at, edge) = (node.next.len(), node.on_failure.as_ref()?);
        is_open(scope, &visit.node, at, edge).then(|| take(graph, at, edge))
    };
    if visit.item.is_some() { Vec::new() } else { way().into_iter().collect() }
}

/// The edges that a visit's output takes, whatever it is; none if that depends on it.
pub fn certain<'g>(graph: &'g Graph, state: &State, visit: &Visit) -> Vec<&'g Edge> {
    let edges = || {
        let (scope, graph) = (state.scope(&visit.within)?, graph.inner(&visit.within)?);
        let open = open(scope, &visit.node, graph.node(&visit.node)?);
        open.map(|(_, edge)| edge.when.is_none().then_some(edge)).collect::<Option<Vec<_>>>()
    };
    if visit.item.is_some() { Vec::new() } else { edges().unwrap_or_default() }
}

/// The edges of `next` that are not used up, with their places.
fn open<'g>(scope: &Scope, name: &NodeName, node: &'g Node) -> impl Iterator<Item = (usize, &'g Edge)> {
    node.next.iter().enumerate().filter(|(at, edge)| is_open(scope, name, *at, edge))
}

fn is_open(scope: &Scope, name: &NodeName, at: usize, edge: &Edge) -> bool {
    edge.at_most.is_none_or(|most| scope.taken.get(&(name.clone(), at as u32)).copied().unwrap_or(0) < most)
}

fn take(graph: &Graph, at: usize, edge: &Edge) -> Taken {
    Taken { edge: at as u32, to: edge.to.clone(), direct: graph.is_direct(edge) }
}

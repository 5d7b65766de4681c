//! Transitions: the edges that a node's output takes.

use std::sync::Arc;

use crate::condition::{self, ConditionScope, NodeOutputs};
use crate::event::{FailureCode, MAX_ITEM_OUTPUTS_BYTES, Output, TakenEdge, ValueWrite, as_text};
use crate::graph::{Edge, Graph, Node, Reducer};
use crate::id::{NodeName, StepId, ValueName, Visit};
use crate::state::{MapRun, Scope, State, output_value};

/// Characters of an output that an error message quotes: enough to recognize it on one line.
const MAX_GIVEN_CHARS: usize = 80;

/// The effects of a finished step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Transition {
    /// The edges taken.
    pub edges: Vec<TakenEdge>,
    /// The write of the output to a value of the graph.
    pub write: Option<ValueWrite>,
}

/// The reasons why no edge of a node can be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// A condition failed on this output.
    #[error("node `{node}`: {source}")]
    Condition {
        /// The node.
        node: NodeName,
        /// The error of its evaluation.
        source: condition::Error,
    },
    /// No condition holds and no edge is unconditional.
    #[error("node `{0}`: no condition in `next` holds and no edge is unconditional")]
    NoEdge(NodeName),
    /// The output is not an object, and the value's reducer merges objects.
    #[error("node `{node}` gave no JSON object, and value `{value}` merges objects: {given}")]
    Merge {
        /// The node.
        node: NodeName,
        /// The value that it writes.
        value: ValueName,
        /// The beginning of its output.
        given: String,
    },
    /// The outputs of a node's items are too large.
    #[error(
        "node `{node}`: with this one, the outputs of its items take {bytes} bytes, the limit is {MAX_ITEM_OUTPUTS_BYTES}: have \
         the role write less for an item, or give it fewer items"
    )]
    ItemOutputs {
        /// The node.
        node: NodeName,
        /// The size of the outputs, this one included.
        bytes: usize,
    },
    /// A value of the graph is too large.
    #[error(
        "node `{node}`: with this write, value `{value}` takes {bytes} bytes, the limit is {MAX_ITEM_OUTPUTS_BYTES}: have the \
         roles write less, or write it on fewer visits"
    )]
    Value {
        /// The node.
        node: NodeName,
        /// The value that it writes.
        value: ValueName,
        /// The size of the value, this write included.
        bytes: usize,
    },
    /// An internal fault.
    #[error("step `{0}` is not running")]
    NotRunning(StepId),
}

impl TransitionError {
    /// The failure code.
    pub fn code(&self) -> FailureCode {
        match self {
            Self::Condition { .. } => FailureCode::Condition,
            Self::NoEdge(_) => FailureCode::NoEdge,
            Self::Merge { .. } | Self::ItemOutputs { .. } | Self::Value { .. } => FailureCode::OutputInvalid,
            Self::NotRunning(_) => FailureCode::Internal,
        }
    }
}

/// The transition of a step with this output: over the first conditional edge that holds and is not used up, or else all
/// unconditional ones that are not used up. Items take no edge; their outputs must fit together, and so must what is written to a value.
pub fn transition(graph: &Graph, state: &State, step: &StepId, output: &Output) -> Result<Transition, TransitionError> {
    let name = &step.visit.node;
    if step.visit.item.is_some() {
        let node = state.active_visit(&step.visit.without_item()).and_then(|active| active.items());
        let bytes = node.map_or(0, |items| items.output_bytes).saturating_add(output.max_encoded_len());
        return match bytes > MAX_ITEM_OUTPUTS_BYTES {
            true => Err(TransitionError::ItemOutputs { node: name.clone(), bytes }),
            false => Ok(Transition::default()),
        };
    }
    let scopes = state.scope(&step.visit.parents).zip(graph.subgraph(&step.visit.parents));
    let found = scopes.and_then(|(scope, graph)| Some((scope, graph, graph.node(name)?)));
    let (scope, graph, node) = found.ok_or_else(|| TransitionError::NotRunning(step.clone()))?;
    let roles = state.active_visit(&step.visit).and_then(|active| active.items()).map(MapRun::collected);
    let value = Arc::new(output_value(output, &roles.map(|(_, roles)| roles).unwrap_or_default()));
    let write = node.write.as_ref().and_then(|target| Some((target, *graph.values().get(target)?)));
    if let Some((target, reducer)) = write
        && !Reducer::accepts(reducer, &value["output"])
    {
        let given = as_text(&value["output"]).chars().take(MAX_GIVEN_CHARS).collect();
        return Err(TransitionError::Merge { node: name.clone(), value: target.clone(), given });
    }
    if let Some((target, reducer)) = write {
        let bytes = scope.value_bytes_after(target, reducer, &value["output"]);
        if bytes > MAX_ITEM_OUTPUTS_BYTES {
            return Err(TransitionError::Value { node: name.clone(), value: target.clone(), bytes });
        }
    }
    let write = write.map(|(target, reducer)| ValueWrite { value: target.clone(), reducer });
    let conditional = match node.next.iter().any(|edge| edge.when.is_some()) {
        true => first_conditional(graph, scope, name, node, &value)?,
        false => None,
    };
    if let Some(edge) = conditional {
        return Ok(Transition { edges: vec![edge], write });
    }
    let unconditional = available_edges(scope, name, node).filter(|(_, edge)| edge.when.is_none());
    let edges: Vec<TakenEdge> = unconditional.map(|(index, edge)| take(graph, index, edge)).collect();
    if edges.is_empty() { Err(TransitionError::NoEdge(name.clone())) } else { Ok(Transition { edges, write }) }
}

/// The first conditional edge that holds.
fn first_conditional(
    graph: &Graph,
    scope: &Scope,
    name: &NodeName,
    node: &Node,
    value: &Arc<serde_json::Value>,
) -> Result<Option<TakenEdge>, TransitionError> {
    let mut nodes: NodeOutputs = NodeOutputs::clone(&scope.outputs);
    nodes.insert(name.clone(), value.clone());
    let values = scope_values(graph, scope);
    let variables = ConditionScope { task: &scope.task, nodes: &nodes, values: &values, output: &value["output"] };
    for (index, edge) in available_edges(scope, name, node) {
        let Some(when) = &edge.when else { continue };
        if when.holds(variables).map_err(|source| TransitionError::Condition { node: name.clone(), source })? {
            return Ok(Some(take(graph, index, edge)));
        }
    }
    Ok(None)
}

/// The variable `values` of CEL and Jinja in a run of a graph, including the values that have not been written.
pub fn scope_values(graph: &Graph, scope: &Scope) -> Arc<condition::GraphValues> {
    let mut values = scope.values.clone();
    for (name, reducer) in graph.values().iter().filter(|(name, _)| !scope.values.contains_key(*name)) {
        Arc::make_mut(&mut values).insert(name.clone(), Arc::new(reducer.initial()));
    }
    values
}

/// The failure edge of a visit whose last attempt has failed; items have none.
pub fn failure_edges(graph: &Graph, state: &State, visit: &Visit) -> Vec<TakenEdge> {
    let edge = || {
        let (scope, graph) = (state.scope(&visit.parents)?, graph.subgraph(&visit.parents)?);
        let node = graph.node(&visit.node)?;
        let (index, edge) = (node.next.len(), node.on_failure.as_ref()?);
        is_available(scope, &visit.node, index, edge).then(|| take(graph, index, edge))
    };
    if visit.item.is_some() { Vec::new() } else { edge().into_iter().collect() }
}

/// The edges that a visit takes regardless of its output; none if they depend on it.
pub fn unconditional_edges<'g>(graph: &'g Graph, state: &State, visit: &Visit) -> Vec<&'g Edge> {
    let edges = || {
        let (scope, graph) = (state.scope(&visit.parents)?, graph.subgraph(&visit.parents)?);
        let available = available_edges(scope, &visit.node, graph.node(&visit.node)?);
        available.map(|(_, edge)| edge.when.is_none().then_some(edge)).collect::<Option<Vec<_>>>()
    };
    if visit.item.is_some() { Vec::new() } else { edges().unwrap_or_default() }
}

/// The edges of `next` that are not used up, with their indices.
fn available_edges<'g>(scope: &Scope, name: &NodeName, node: &'g Node) -> impl Iterator<Item = (usize, &'g Edge)> {
    node.next.iter().enumerate().filter(|(index, edge)| is_available(scope, name, *index, edge))
}

fn is_available(scope: &Scope, name: &NodeName, index: usize, edge: &Edge) -> bool {
    edge.at_most.is_none_or(|limit| scope.edge_counts.get(&(name.clone(), index as u32)).copied().unwrap_or(0) < limit)
}

fn take(graph: &Graph, index: usize, edge: &Edge) -> TakenEdge {
    TakenEdge { edge: index as u32, to: edge.to.clone(), direct: graph.is_direct(edge) }
}

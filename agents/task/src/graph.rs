//! Graphs: built once from their parts, checked as a whole, immutable. A graph that exists is bounded.

mod check;
mod lookahead;
mod node;
mod parts;

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{GraphName, NodeName, PathSegment, ValueName, Visit};

pub use check::GraphFault;
pub use node::{
    AskNode, Edge, ForEach, Join, MAX_ITEMS, Reducer, ReplaySafety, RetryPolicy, RoleRef, RouterNode, SearchNode,
    StepPolicy,
};
pub use parts::{Graph, GraphLimits, GraphParts, Node, NodeKind};

impl Graph {
    /// Checks the parts; the error lists all faults.
    pub fn new(parts: GraphParts) -> Result<Self, Vec<GraphFault>> {
        let mut faults = check::names(&parts);
        if faults.is_empty() {
            faults = check::paths(&parts);
        }
        let sources = check::sources(&parts);
        if faults.is_empty() {
            faults = check::joins(&parts, &sources);
        }
        let depths = parts.nodes.values().filter_map(|node| match &node.kind {
            NodeKind::Graph { graph, .. } => Some(graph.depth + 1),
            _ => None,
        });
        let depth = depths.max().unwrap_or(0);
        if !faults.is_empty() {
            return Err(faults);
        }
        let steps_to_done = lookahead::steps_to_done(&parts.nodes);
        Ok(Self { parts, depth, sources, steps_to_done })
    }

    /// Its name.
    pub fn name(&self) -> &GraphName {
        &self.parts.name
    }

    /// Its purpose.
    pub fn description(&self) -> &str {
        &self.parts.description
    }

    /// The node that runs first.
    pub fn start(&self) -> &NodeName {
        &self.parts.start
    }

    /// The node whose last output is the task's result.
    pub fn result(&self) -> Option<&NodeName> {
        self.parts.result.as_ref()
    }

    /// Its limits.
    pub fn limits(&self) -> GraphLimits {
        self.parts.limits
    }

    /// The values that its nodes share.
    pub fn values(&self) -> &BTreeMap<ValueName, Reducer> {
        &self.parts.values
    }

    /// The result that replaces a failure.
    pub fn fallback(&self) -> Option<&str> {
        self.parts.fallback.as_deref()
    }

    /// The nesting depth of its sub-graphs; 0 without any.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The graph that runs inside these visits; this graph itself if the path is empty.
    pub fn subgraph(&self, path: &[PathSegment]) -> Option<&Self> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        match &self.node(&first.node)?.kind {
            NodeKind::Graph { graph, .. } => graph.subgraph(rest),
            _ => None,
        }
    }

    /// The node of a visit, in this graph or in a sub-graph.
    pub fn node_at(&self, visit: &Visit) -> Option<&Node> {
        self.subgraph(&visit.parents)?.node(&visit.node)
    }

    /// The fewest steps that must follow this visit until its task may be done; 0 for a node with an edge to `done`. A
    /// sub-graph that has not started counts as one step.
    pub fn remaining_steps(&self, visit: &Visit) -> u32 {
        let (mut graph, mut steps) = (self, 0u32);
        for parent in &visit.parents {
            steps = steps.saturating_add(graph.steps_after(&parent.node));
            let Some(NodeKind::Graph { graph: nested, .. }) = graph.node(&parent.node).map(|node| &node.kind) else {
                break;
            };
            graph = nested;
        }
        steps.saturating_add(graph.steps_after(&visit.node))
    }

    fn steps_after(&self, node: &NodeName) -> u32 {
        self.steps_to_done.get(node).copied().unwrap_or(0)
    }

    /// All nodes by name.
    pub fn nodes(&self) -> &BTreeMap<NodeName, Node> {
        &self.parts.nodes
    }

    /// A node of this graph.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.parts.nodes.get(name)
    }

    /// The nodes that the join of `name` counts.
    pub fn sources(&self, name: &NodeName) -> Option<&BTreeSet<NodeName>> {
        self.sources.get(name)
    }

    /// Whether an arrival over this edge triggers its target by itself.
    pub(crate) fn is_direct(&self, edge: &Edge) -> bool {
        let Some(to) = &edge.to else { return true };
        let several = self.sources.get(to).is_some_and(|sources| sources.len() > 1);
        let counted = matches!(self.parts.nodes[to].join, Some(Join::All | Join::Quorum(_)));
        edge.at_most.is_some() || !several || !counted
    }
}

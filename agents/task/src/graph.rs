//! A graph that exists is bounded: built once from its parts, checked as a whole, never changed.

mod ahead;
mod check;
mod left;
mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{GraphName, NodeName, Place, ValueName, Visit};

pub use check::Fault;
pub use node::{Ask, Each, Edge, Effect, Effort, Join, MAX_ITEMS, Node, Reduce, Retries, RoleRef, Router, Work};

/// What a graph is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// Its name.
    pub name: GraphName,
    /// What it is for.
    pub description: String,
    /// The node that runs first.
    pub start: NodeName,
    /// The node whose last output is the task's result; without it, the last node that went to `done`.
    pub result: Option<NodeName>,
    /// Its nodes.
    pub nodes: BTreeMap<NodeName, Node>,
    /// Its limits.
    pub limits: Limits,
    /// The values that its nodes write together, and how each is made of what they write.
    pub values: BTreeMap<ValueName, Reduce>,
    /// The answer in place of a failure.
    pub fallback: Option<String>,
}

/// What one task of a graph may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Attempts at nodes.
    pub steps: u32,
    /// Prompt and output tokens of all steps.
    pub tokens: u64,
    /// From acceptance to the end.
    pub time: Duration,
}

impl Default for Limits {
    /// Generous for a crew that talks, small enough to end a loop within a coffee break.
    fn default() -> Self {
        Self { steps: 64, tokens: 32_000, time: Duration::from_secs(600) }
    }
}

/// A graph that is known to end: every node reachable, every cycle bounded, every join satisfiable on paper. The graphs
/// that its nodes run are part of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    parts: Parts,
    /// How deep the graphs inside of it nest; 0 without any.
    depth: usize,
    /// Per node, the distinct nodes whose unbounded edges lead here: what a join counts.
    sources: BTreeMap<NodeName, BTreeSet<NodeName>>,
    /// Per node, the steps that must follow it at least.
    left: BTreeMap<NodeName, u32>,
}

impl Graph {
    /// Checks the parts; all faults at once.
    pub fn new(parts: Parts) -> Result<Self, Vec<Fault>> {
        let mut faults = check::names(&parts);
        if faults.is_empty() {
            faults = check::ways(&parts);
        }
        let sources = check::sources(&parts);
        if faults.is_empty() {
            faults = check::joins(&parts, &sources);
        }
        let inner = parts.nodes.values().filter_map(|node| match &node.work {
            Work::Graph { graph, .. } => Some(graph.depth + 1),
            _ => None,
        });
        let depth = inner.max().unwrap_or(0);
        if !faults.is_empty() {
            return Err(faults);
        }
        let left = left::of(&parts.nodes);
        Ok(Self { parts, depth, sources, left })
    }

    /// Its name.
    pub fn name(&self) -> &GraphName {
        &self.parts.name
    }

    /// What it is for.
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
    pub fn limits(&self) -> Limits {
        self.parts.limits
    }

    /// The values that its nodes write together.
    pub fn values(&self) -> &BTreeMap<ValueName, Reduce> {
        &self.parts.values
    }

    /// The answer in place of a failure.
    pub fn fallback(&self) -> Option<&str> {
        self.parts.fallback.as_deref()
    }

    /// How deep the graphs inside of it nest; 0 without any.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The graph that is run inside of these visits; this one itself inside of none.
    pub fn inner(&self, within: &[Place]) -> Option<&Self> {
        let Some((first, rest)) = within.split_first() else { return Some(self) };
        match &self.node(&first.node)?.work {
            Work::Graph { graph, .. } => graph.inner(rest),
            _ => None,
        }
    }

    /// The node of a visit, in whichever graph it lies.
    pub fn node_of(&self, visit: &Visit) -> Option<&Node> {
        self.inner(&visit.within)?.node(&visit.node)
    }

    /// The steps that must follow one at this visit until its task may be done, over the shortest way; 0 for a node from
    /// which an edge leads to `done`. A sub-graph that is still to come counts as one.
    pub fn left(&self, visit: &Visit) -> u32 {
        let (mut graph, mut left) = (self, 0u32);
        for place in &visit.within {
            left = left.saturating_add(graph.left_after(&place.node));
            let Some(Work::Graph { graph: inner, .. }) = graph.node(&place.node).map(|node| &node.work) else { break };
            graph = inner;
        }
        left.saturating_add(graph.left_after(&visit.node))
    }

    fn left_after(&self, node: &NodeName) -> u32 {
        self.left.get(node).copied().unwrap_or(0)
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

    /// Whether an arrival over this edge triggers its target alone.
    pub(crate) fn is_direct(&self, edge: &Edge) -> bool {
        let Some(to) = &edge.to else { return true };
        let several = self.sources.get(to).is_some_and(|sources| sources.len() > 1);
        let counted = matches!(self.parts.nodes[to].join, Some(Join::All | Join::Quorum(_)));
        edge.at_most.is_some() || !several || !counted
    }
}

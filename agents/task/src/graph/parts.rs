//! The types of a graph, which contain each other: a node may be a graph.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::node::{AskNode, Edge, ForEach, Join, Reducer, ReplaySafety, RoleRef, RouterNode, SearchNode, StepPolicy};
use crate::id::{GraphName, NodeName, ValueName};

/// The parts of a graph, unchecked.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphParts {
    /// Its name.
    pub name: GraphName,
    /// Its purpose, for the router and for humans.
    pub description: String,
    /// The node that runs first.
    pub start: NodeName,
    /// The node whose last output is the task's result; without it, the last node that went to `done`.
    pub result: Option<NodeName>,
    /// Its nodes.
    pub nodes: BTreeMap<NodeName, Node>,
    /// Its limits.
    pub limits: GraphLimits,
    /// The values that its nodes share, each with the reducer that combines writes to it.
    pub values: BTreeMap<ValueName, Reducer>,
    /// The result that replaces a failure.
    pub fallback: Option<String>,
}

/// The limits of one run of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphLimits {
    /// Attempts at nodes.
    pub steps: u32,
    /// Prompt and output tokens of all steps.
    pub tokens: u64,
    /// From the start of the run to its end, pauses for human answers excluded.
    pub time: Duration,
}

impl Default for GraphLimits {
    /// Generous for a conversation of several roles, and small enough to end a loop within minutes.
    fn default() -> Self {
        Self { steps: 64, tokens: 32_000, time: Duration::from_secs(600) }
    }
}

/// A graph that is known to terminate: every node is reachable, every cycle is bounded, every join can be satisfied by its
/// sources. It contains its sub-graphs.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    pub(super) parts: GraphParts,
    /// The nesting depth of its sub-graphs; 0 without any.
    pub(super) depth: usize,
    /// Per node, the distinct sources of its unbounded incoming edges, which its join counts.
    pub(super) sources: BTreeMap<NodeName, BTreeSet<NodeName>>,
    /// Per node, the fewest steps that follow it.
    pub(super) steps_to_done: BTreeMap<NodeName, u32>,
}

/// A node of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it runs.
    pub kind: NodeKind,
    /// The list that it is mapped over.
    pub for_each: Option<ForEach>,
    /// When it runs, if it has several incoming edges.
    pub join: Option<Join>,
    /// Its outgoing edges, in the order in which they are tried.
    pub next: Vec<Edge>,
    /// The edge taken after its last attempt has failed; without one, its graph fails.
    pub on_failure: Option<Edge>,
    /// Its retries and timeouts.
    pub policy: StepPolicy,
    /// Whether it is safe to run it twice.
    pub replay_safety: ReplaySafety,
    /// Whether an earlier response to the same messages may be reused.
    pub cache: bool,
    /// The value of the graph that its output is written to.
    pub write: Option<ValueName>,
    /// The search whose passages its role answers from and cites, or its check compares with.
    pub passages: Option<NodeName>,
}

impl Node {
    /// A node with the defaults for everything else.
    pub fn new(kind: NodeKind, next: Vec<Edge>) -> Self {
        let (for_each, join, on_failure, write) = (None, None, None, None);
        Self {
            kind,
            for_each,
            join,
            next,
            on_failure,
            policy: StepPolicy::default(),
            replay_safety: ReplaySafety::Pure,
            cache: false,
            write,
            passages: None,
        }
    }

    /// All outgoing edges; the failure edge comes after those of `next`.
    pub fn edges(&self) -> impl Iterator<Item = &Edge> {
        self.next.iter().chain(&self.on_failure)
    }
}

/// The kinds of node.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeKind {
    /// A role.
    Role {
        /// The role.
        role: RoleRef,
        /// A Jinja source that replaces the role's own message template at this node.
        message: Option<String>,
    },
    /// A router.
    Router(RouterNode),
    /// A question to a human.
    Ask(AskNode),
    /// A search of a knowledge.
    Search(SearchNode),
    /// A check of this node's answer against passages.
    Check(NodeName),
    /// Another graph, run inside the same task.
    Graph {
        /// The sub-graph.
        graph: Arc<Graph>,
        /// A Jinja source of its input; without it, the text that a role would read here.
        message: Option<String>,
    },
}

//! The types of a run, which contain each other: a visit may hold a run of another graph.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::condition::{GraphValues, NodeOutputs};
use crate::event::{Failure, Output, Timestamp};
use crate::id::{NodeName, PathSegment, RoleName, ValueName};

/// The resources that a run has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResourceUsage {
    /// Attempts started.
    pub steps: u32,
    /// Prompt and output tokens.
    pub tokens: u64,
}

/// The state of one node in a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeState {
    /// Visits started.
    pub visits: u32,
    /// The output of its last finished visit.
    pub output: Option<Arc<Output>>,
    /// The roles that produced it, per item; empty without items.
    pub roles: Vec<Option<RoleName>>,
    /// Arrivals that each trigger it by themselves, oldest first, with the node that they come from (`None`: the start).
    pub direct: VecDeque<Option<NodeName>>,
    /// Arrivals that its join counts, per source.
    pub arrivals: BTreeMap<NodeName, u32>,
    /// Rounds of its join that have fired.
    pub rounds: u32,
    /// The number of sources that have arrived for the next round.
    pub arrived_count: usize,
}

/// One run of one graph: a task's own, or one inside a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope {
    /// The variable `task` of CEL and Jinja: `{id, graph, input}`.
    pub task: Arc<Value>,
    /// The task's age when the run started.
    pub started_age: Duration,
    /// The resources that it has used, nested runs included.
    pub usage: ResourceUsage,
    /// The state of its nodes.
    pub nodes: BTreeMap<NodeName, NodeState>,
    /// The nodes with arrivals that have not started a visit.
    pub ready: BTreeSet<NodeName>,
    /// The variable `nodes` of CEL and Jinja.
    pub outputs: Arc<NodeOutputs>,
    /// The variable `values` of CEL and Jinja, without the values that have not been written.
    pub values: Arc<GraphValues>,
    /// What each of them takes in messages, in bytes.
    pub value_bytes: BTreeMap<ValueName, usize>,
    /// Visits that have not ended; those of items are in their node's visit.
    pub active: BTreeMap<PathSegment, ActiveVisit>,
    /// How often each edge was taken, by node and index in `next`.
    pub edge_counts: BTreeMap<(NodeName, u32), u32>,
    /// The last node whose edge led to `done`.
    pub done: Option<NodeName>,
    /// The failure that ends the run.
    pub fatal: Option<Failure>,
    /// The failure of the last step that was cancelled alone: the reason if there is no result.
    pub cancelled: Option<Failure>,
}

/// A visit that has not ended.
#[derive(Debug, Clone, PartialEq)]
pub struct ActiveVisit {
    /// The running attempt, or the last one that failed.
    pub attempt: u32,
    /// Attempts that failed; those interrupted by a restart do not count.
    pub failures: u32,
    /// The last of them in a row that failed because an engine or an actor stopped.
    pub interruptions: u32,
    /// Those that failed because their output was not valid.
    pub invalid_outputs: u32,
    /// The nodes whose output made it ready; empty at the start.
    pub sources: Vec<NodeName>,
    /// The task's age when the attempt started.
    pub started_age: Duration,
    /// Its status.
    pub status: VisitStatus,
    /// Its nested work.
    pub nested: Option<NestedRun>,
}

/// The status of an active visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VisitStatus {
    /// Its attempt is running.
    Running,
    /// Its attempt was interrupted by a restart.
    Interrupted,
    /// Its attempt failed, and a retry is due.
    Retrying {
        /// When the attempt failed.
        failed_at: Timestamp,
        /// The delay from then to the retry.
        delay: Duration,
    },
    /// It waits for a human answer.
    AwaitingAnswer {
        /// The time after which no answer is accepted.
        deadline: Option<Timestamp>,
    },
}

/// The nested work of a visit.
#[derive(Debug, Clone, PartialEq)]
pub enum NestedRun {
    /// The items of a list.
    Items(Box<MapRun>),
    /// Another graph.
    Graph(Box<Scope>),
}

/// The run of a node that is mapped over a list.
#[derive(Debug, Clone, PartialEq)]
pub struct MapRun {
    /// The list.
    pub list: Arc<[Value]>,
    /// Visits of items that have not ended.
    pub active: BTreeMap<u32, ActiveVisit>,
    /// The first item that has not started; they start in order.
    pub next_item: u32,
    /// The output of each item.
    pub outputs: Vec<Option<Output>>,
    /// What these outputs take in messages, in bytes.
    pub output_bytes: usize,
    /// The number of items that have not ended.
    pub remaining: usize,
    /// The failure of an item, which fails the node.
    pub fatal: Option<Failure>,
}

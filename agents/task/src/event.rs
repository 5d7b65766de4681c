//! The facts about a task, as they are journalled.

mod decision;
mod weight;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::graph::Reduce;
use crate::id::{CatalogVersion, GraphName, NodeName, RequestId, RoleName, Seq, StepId, TaskId, ValueName};

pub use decision::{Decision, Nobody, Score, Signal};
pub use weight::MAX_OUTPUT;

/// Milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

/// One fact about one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Whose fact.
    pub task: TaskId,
    /// Its place among the facts of this task.
    pub seq: Seq,
    /// When it was written down.
    pub at: Timestamp,
    /// What happened.
    pub kind: Kind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// The task exists; it is on disk before any client hears of it.
    Accepted(Accepted),
    /// A router node decided.
    Routed {
        /// The router's step.
        step: StepId,
        /// What it decided and why.
        decision: Decision,
    },
    /// An attempt at a node began.
    StepStarted {
        /// Which attempt.
        step: StepId,
        /// What made the node ready; `None` for a further attempt at the same visit.
        trigger: Option<Trigger>,
        /// The role that works, absent for nodes without one.
        role: Option<RoleName>,
        /// What runs inside of the step, for a node with items and for a sub-graph.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        inner: Option<Inner>,
    },
    /// An attempt waits for a person.
    Waiting {
        /// Which attempt.
        step: StepId,
        /// What is asked.
        question: String,
        /// The JSON schema of the answer, if it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schema: Option<Value>,
        /// Until when an answer counts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
    },
    /// An attempt gave a result, and these edges were taken.
    StepFinished {
        /// Which attempt.
        step: StepId,
        /// What it gave. Empty for a node with items: what those gave makes it up.
        output: Output,
        /// Tokens it took.
        usage: Usage,
        /// Where the time went.
        timings: Timings,
        /// The edges taken from here; none from an item.
        took: Vec<Taken>,
        /// Where the output comes from.
        #[serde(default, skip_serializing_if = "Source::is_run")]
        source: Source,
        /// The value of the graph that it went into.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wrote: Option<Written>,
    },
    /// An attempt failed.
    StepFailed {
        /// Which attempt.
        step: StepId,
        /// Why.
        failure: Failure,
        /// How long until the next attempt; `None` if there is none. Then the way on failure is taken, or the graph fails;
        /// of a step that was cancelled by itself, only its branch ends.
        retry_after: Option<Duration>,
        /// The way on failure, if there is one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        took: Vec<Taken>,
    },
    /// The daemon took the task up again after a restart; attempts that ran begin anew.
    Resumed,
    /// The task is done.
    Completed {
        /// The result.
        output: Output,
        /// The failure in whose place the graph's fallback answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instead_of: Option<Failure>,
    },
    /// The task failed.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// The task was cancelled.
    Cancelled {
        /// Who asked, or why, in words.
        reason: String,
    },
}

impl Kind {
    /// Whether nothing can come after it.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Completed { .. } | Self::Failed { .. } | Self::Cancelled { .. })
    }
}

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The graph to run.
    pub graph: GraphName,
    /// Set when the client asked for one role alone: the graph is then that role's one-node graph.
    pub role: Option<RoleName>,
    /// The text of the request.
    pub input: String,
    /// The catalog that the task keeps to its end.
    pub catalog: CatalogVersion,
    /// The client's own key, if it gave one.
    pub request: Option<RequestId>,
    /// How urgent its steps are.
    pub class: Class,
    /// The client's own notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The task that it was forked from; what it takes over from there comes next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked: Option<Forked>,
    /// How the graph was chosen, if the router chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Box<Decision>>,
}

/// Where a task was forked from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forked {
    /// The other task.
    pub task: TaskId,
    /// Its first step that is run anew; without it, all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
}

/// How urgent a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// Nobody does.
    Batch,
}

/// What made a node ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// One arrival was enough: the start, `join: any`, a single incoming edge or a bounded back edge.
    Direct,
    /// A round of a join is complete.
    Round,
}

/// What runs inside of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inner {
    /// The node, once for each of these.
    Items(Arc<[Value]>),
    /// Another graph.
    Graph {
        /// Its name.
        graph: GraphName,
        /// The node that it begins with.
        start: NodeName,
        /// What it is asked.
        input: String,
    },
}

/// Where an output comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The step was run.
    #[default]
    Run,
    /// A person answered.
    Person,
    /// No person answered in time, and the node says what holds then.
    Otherwise,
    /// An earlier run of the same node with the same messages.
    Cache,
    /// The sub-graph failed, and its fallback answers.
    Fallback,
}

impl Source {
    fn is_run(&self) -> bool {
        *self == Self::Run
    }
}

/// A value that an output went into, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Which value.
    pub value: ValueName,
    /// How it is made of what is written.
    pub how: Reduce,
}

/// An edge that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The edge's place in its node's `next`, from 0; the one behind the last is that on failure.
    pub edge: u32,
    /// Where it leads; `None` is `done`.
    pub to: Option<NodeName>,
    /// Whether it triggers its target alone, or is counted by the target's join.
    pub direct: bool,
}

/// What a step gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The text; for a role with a schema, the JSON text; for a router, the text that it read.
    pub text: String,
    /// The parsed JSON of a role with a schema.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub json: Option<Value>,
    /// The role that answered; for a router, the role that it chose.
    pub role: Option<RoleName>,
}

/// A `null` that is there is a value, not nothing.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Output {
    /// A text that nobody in particular gave.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), json: None, role: None }
    }

    /// JSON that nobody in particular gave; its text is that of a string, or the JSON text.
    pub fn json(json: Value) -> Self {
        Self { text: as_text(&json), json: Some(json), role: None }
    }
}

/// A value as a text: a string is itself.
pub fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Tokens of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Of these, the ones that were computed rather than shared.
    pub computed: u32,
    /// Tokens generated.
    pub output: u32,
    /// Of these, the ones that the schema left no choice about.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub forced: u32,
    /// Tokens computed because they were likely to come next.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub drafted: u32,
    /// Of these, the ones that came.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub accepted: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Usage {
    /// What counts against the graph's limit of tokens.
    pub fn total(self) -> u64 {
        u64::from(self.prompt) + u64::from(self.output)
    }
}

/// Where the time of one step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timings {
    /// From the request to the first batch with a token of it.
    pub queue: Duration,
    /// From there to the end of the prompt.
    pub prefill: Duration,
    /// From there to the last token.
    pub decode: Duration,
    /// The longest wait between two tokens.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub gap: Duration,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of failure, for programs.
    pub code: Code,
    /// What, where and what to do, for people.
    pub message: String,
    /// The step, if one is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The step took longer than its role allows.
    Timeout,
    /// No token came for longer than the role allows.
    Idle,
    /// The prompt does not fit into the model's context.
    ContextOverflow,
    /// The model could not be loaded or its engine ended.
    ModelUnavailable,
    /// A Jinja template failed on these values.
    Template,
    /// A CEL condition failed on these values.
    Condition,
    /// No edge could be taken.
    NoEdge,
    /// A join waits for a node that cannot arrive any more.
    JoinStuck,
    /// The graph's limit of steps is used up.
    LimitSteps,
    /// The graph's limit of tokens is used up.
    LimitTokens,
    /// The graph's limit of time is used up.
    LimitTime,
    /// The role's queue is full.
    QueueFull,
    /// The daemon or an actor stopped in the middle.
    Interrupted,
    /// A role with a schema gave something else.
    OutputInvalid,
    /// The router could not decide.
    Router,
    /// The step was cancelled by itself.
    Cancelled,
    /// A person did not answer in time.
    NoAnswer,
    /// A list to map over is none, or has more items than the node takes.
    Items,
    /// A fault of the daemon itself.
    Internal,
}

impl Code {
    /// Whether another attempt may do better.
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Timeout
                | Self::Idle
                | Self::ModelUnavailable
                | Self::QueueFull
                | Self::Interrupted
                | Self::OutputInvalid
        )
    }
}

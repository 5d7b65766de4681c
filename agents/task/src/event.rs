//! The facts about a task, as they are journalled.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{CatalogVersion, GraphName, NodeName, RequestId, RoleName, Seq, StepId, TaskId};

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
        /// The role that works, absent for routers.
        role: Option<RoleName>,
    },
    /// An attempt gave a result, and these edges were taken.
    StepFinished {
        /// Which attempt.
        step: StepId,
        /// What it gave.
        output: Output,
        /// Tokens it took.
        usage: Usage,
        /// Where the time went.
        timings: Timings,
        /// The edges taken from here.
        took: Vec<Taken>,
    },
    /// An attempt failed.
    StepFailed {
        /// Which attempt.
        step: StepId,
        /// Why.
        failure: Failure,
        /// How long until the next attempt; `None` if there is none, which fails the task.
        retry_after: Option<Duration>,
    },
    /// The daemon took the task up again after a restart; attempts that ran begin anew.
    Resumed,
    /// The task is done.
    Completed {
        /// The result.
        output: Output,
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

/// An edge that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The edge's place in its node's `next`, from 0.
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// The role that answered; for a router, the role that it chose.
    pub role: Option<RoleName>,
}

/// What a router decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The winner.
    pub role: RoleName,
    /// From 0 to 1.
    pub confidence: f64,
    /// Whether nobody was sure enough, so that the node's `otherwise` won.
    pub otherwise: bool,
    /// The signal that decided, such as `embedding`.
    pub signal: String,
    /// Every candidate, best first.
    pub scores: Vec<Score>,
    /// How long it took.
    pub took: Duration,
    /// Tokens computed for it.
    pub tokens: u32,
}

/// A candidate's score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The candidate.
    pub role: RoleName,
    /// From 0 to 1; the scores of one decision need not add up to 1.
    pub score: f64,
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

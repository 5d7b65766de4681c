//! The events of a task, as they are journalled.

mod decision;
mod erase;
mod response;
mod size;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use artel_model::sampling::{DryParams, XtcParams};
pub use artel_model::{
    Citation, Conversation, FinishReason, InvalidConversation, InvalidTools, ReasoningParams, RequestSampling,
    SamplingOptions, Speaker, TokenLogprob, Tool, ToolCall, ToolChoice, ToolSet, TopLogprob, Turn,
};

use crate::graph::Reducer;
use crate::id::{CallerName, CatalogVersion, GraphName, NodeName, RequestId, RoleName, Seq, StepId, TaskId, ValueName};
use crate::trace::TraceContext;

pub use decision::{CandidateScore, Decision, NoMatch, Signal};
pub use erase::ERASED_TEXT;
pub use response::{MAX_LOGPROBS_BYTES, OutputLogprobs, ResponseFormat};
pub use size::{MAX_ITEM_OUTPUTS_BYTES, MAX_OUTPUT_BYTES, MAX_REASONING_BYTES};

/// Milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

/// One event of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The task.
    pub task: TaskId,
    /// Its sequence number among the events of this task.
    pub seq: Seq,
    /// When it was recorded.
    pub at: Timestamp,
    /// The kind of event, with its data.
    pub kind: EventKind,
}

/// The kinds of event. Their names and the stored names of their fields are part of the journal format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// The task was accepted; the event is on disk before any client is notified.
    Accepted(TaskSpec),
    /// A router node made a decision.
    Routed {
        /// The router's step.
        step: StepId,
        /// The decision and its scores.
        decision: Decision,
    },
    /// An attempt at a node started.
    StepStarted {
        /// The attempt.
        step: StepId,
        /// What made the node ready; `None` for a retry of the same visit.
        trigger: Option<Trigger>,
        /// The role that runs; absent for nodes without one.
        role: Option<RoleName>,
        /// The nested work of a node with items or of a sub-graph.
        #[serde(rename = "inner", default, skip_serializing_if = "Option::is_none")]
        nested: Option<Nested>,
    },
    /// An attempt waits for a human answer.
    Waiting {
        /// The attempt.
        step: StepId,
        /// The question.
        question: String,
        /// The JSON schema of the answer, if it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schema: Option<Value>,
        /// The time after which no answer is accepted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
    },
    /// An attempt produced a result, and these edges were taken.
    StepFinished {
        /// The attempt.
        step: StepId,
        /// Its output. Empty for a node with items, whose output is assembled from those of its items.
        output: Output,
        /// Token counts.
        usage: Usage,
        /// Durations of its stages.
        timings: Timings,
        /// The edges taken from here; none from an item.
        #[serde(rename = "took")]
        taken: Vec<TakenEdge>,
        /// Where the output comes from.
        #[serde(default, skip_serializing_if = "ResultSource::is_run")]
        source: ResultSource,
        /// The value of the graph that the output was written to.
        #[serde(rename = "wrote", default, skip_serializing_if = "Option::is_none")]
        write: Option<ValueWrite>,
    },
    /// An attempt failed.
    StepFailed {
        /// The attempt.
        step: StepId,
        /// Why.
        failure: Failure,
        /// The delay before the next attempt; `None` if there is none. Then the failure edge is taken, or the graph fails; if
        /// only this step was cancelled, only its branch ends.
        retry_after: Option<Duration>,
        /// The failure edge, if the node has one.
        #[serde(rename = "took", default, skip_serializing_if = "Vec::is_empty")]
        taken: Vec<TakenEdge>,
        /// What it had written when a client cancelled it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        partial: Option<Box<Output>>,
    },
    /// The daemon resumed the task, after a restart or because a client took it up again; interrupted attempts start again.
    Resumed,
    /// The task is not run any more until a client takes it up again. It has not ended.
    SetAside {
        /// What kept it from making progress, and what to do.
        reason: String,
    },
    /// The task completed.
    Completed {
        /// The result.
        output: Output,
        /// The failure that the graph's fallback replaced.
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
        /// The reason given with the cancellation.
        reason: String,
        /// What its running attempts had written by then.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        partial: Vec<PartialOutput>,
    },
}

impl EventKind {
    /// Whether it is terminal: no event can follow it.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Completed { .. } | Self::Failed { .. } | Self::Cancelled { .. })
    }

    /// Whether the task has come further with it. Starting a step again and again does not count.
    pub fn is_progress(&self) -> bool {
        !matches!(self, Self::Accepted(_) | Self::StepStarted { .. } | Self::Resumed | Self::SetAside { .. })
    }
}

/// The request that a task was accepted with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The graph to run.
    pub graph: GraphName,
    /// Set when the client requested a single role: the graph is then that role's one-node graph.
    pub role: Option<RoleName>,
    /// The text of the request.
    pub input: String,
    /// The catalog version that the task is pinned to.
    pub catalog: CatalogVersion,
    /// The client's idempotency key, if it gave one.
    pub request: Option<RequestId>,
    /// The priority of its steps.
    #[serde(rename = "class")]
    pub priority: TaskPriority,
    /// Labels set by the client.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The task that it was forked from; the events copied from that task follow.
    #[serde(rename = "forked", default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<ForkOrigin>,
    /// The router's decision, if the router chose the graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Box<Decision>>,
    /// The caller that the task belongs to. Older journals name none: their tasks belong to the user whose daemon it is.
    #[serde(default = "CallerName::owner", skip_serializing_if = "CallerName::is_owner")]
    pub owner: CallerName,
    /// When the text of the task was erased, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased: Option<Timestamp>,
    /// The span that the task's own is a child of, if its trace is recorded. It is kept with the task, so that a task that is
    /// resumed goes on in the same trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    /// How the client wants the answer of a single role to be sampled, within what the role allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Box<RequestSampling>>,
    /// The form that the client wants the answer of a single role to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Box<ResponseFormat>>,
    /// The tools of the caller, which its single role may call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Arc<ToolSet>>,
    /// What the client allows of the reasoning of its models, within what their roles do; all of that without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<ReasoningParams>,
    /// The conversation that the request continues; its text is the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<Arc<Conversation>>,
}

/// The origin of a forked task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkOrigin {
    /// The original task.
    pub task: TaskId,
    /// The first step that is run again; `None` if all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
    /// How many events after the first one were copied from it. Older journals do not say it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub copied: u32,
}

impl ForkOrigin {
    /// Whether it names the same step of the same task.
    pub fn is_same_place(&self, other: &Self) -> bool {
        (self.task, &self.step) == (other.task, &other.step)
    }
}

/// The priority of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskPriority {
    /// A client waits for the answer.
    #[default]
    Interactive,
    /// No client waits; throughput matters more than latency.
    Batch,
}

/// What made a node ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A single arrival: the start, `join: any`, a single incoming edge or a bounded back edge.
    Direct,
    /// A round of a join is complete.
    Round,
}

/// The nested work of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nested {
    /// The node, run once per item.
    Items(Arc<[Value]>),
    /// Another graph.
    Graph {
        /// Its name.
        graph: GraphName,
        /// The node that it starts with.
        start: NodeName,
        /// Its input.
        input: String,
    },
}

/// Where an output comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultSource {
    /// The step was run.
    #[default]
    Run,
    /// A human answered.
    Person,
    /// No answer came in time, and the node's `otherwise` was used.
    Otherwise,
    /// The response cache: an earlier run of the same node with the same messages.
    Cache,
    /// The sub-graph failed, and its fallback was used.
    Fallback,
}

impl ResultSource {
    fn is_run(&self) -> bool {
        *self == Self::Run
    }
}

/// The write of an output to a value of the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueWrite {
    /// The value.
    pub value: ValueName,
    /// The reducer that combines writes.
    #[serde(rename = "how")]
    pub reducer: Reducer,
}

/// An edge that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenEdge {
    /// The edge's index in its node's `next`, from 0; the index after the last is the failure edge.
    pub edge: u32,
    /// Its target; `None` is `done`.
    pub to: Option<NodeName>,
    /// Whether it triggers its target by itself; otherwise the target's join counts it.
    pub direct: bool,
}

/// The output of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The text; for a role with a schema, the JSON text; for a router, the text that it routed.
    pub text: String,
    /// The parsed JSON of a role with a schema.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub json: Option<Value>,
    /// The role that answered; for a router, the chosen role.
    pub role: Option<RoleName>,
    /// Why the model's output ended, if a model wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<FinishReason>,
    /// What the model reasoned before it, if its role shows that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// The tools that the model calls, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<ToolCall>,
    /// The passages that it cites, by their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub citations: Vec<Citation>,
    /// The further answers to the same prompt, if several were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Output>,
    /// How likely its tokens were, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Box<OutputLogprobs>>,
}

/// What an attempt had written before its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartialOutput {
    /// The attempt.
    pub step: StepId,
    /// What it had written; its finish is `cancelled`.
    pub output: Output,
}

/// Reads a `null` that is present as a value rather than as absence.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Output {
    /// A text without a role.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            text,
            json: None,
            role: None,
            finish: None,
            reasoning: None,
            calls: Vec::new(),
            citations: Vec::new(),
            alternatives: Vec::new(),
            logprobs: None,
        }
    }

    /// JSON without a role; its text is the string's own, or the JSON text.
    pub fn json(json: Value) -> Self {
        let text = as_text(&json);
        Self { json: Some(json), ..Self::text(text) }
    }
}

/// A value as text; a string is returned unquoted.
pub fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Token counts of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Of these, the tokens that were computed rather than found in the prefix cache.
    pub computed: u32,
    /// Tokens generated.
    pub output: u32,
    /// Of these, the tokens that the schema determined (SGLang's jump-forward), or the end of a reasoning.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub forced: u32,
    /// Of the tokens generated, those of the reasoning.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reasoning: u32,
    /// Draft tokens proposed by speculative decoding.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub drafted: u32,
    /// Of these, the accepted tokens.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub accepted: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Usage {
    /// The tokens that count against the graph's token limit.
    pub fn total(self) -> u64 {
        u64::from(self.prompt) + u64::from(self.output)
    }
}

/// Durations of the stages of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timings {
    /// From the request to the first batch with a token of it.
    pub queue: Duration,
    /// From there to the end of the prompt.
    pub prefill: Duration,
    /// From there to the last token.
    pub decode: Duration,
    /// The longest inter-token latency.
    #[serde(rename = "gap", default, skip_serializing_if = "Duration::is_zero")]
    pub max_itl: Duration,
}

/// A failure of a step or of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The failure code, for programs.
    pub code: FailureCode,
    /// What failed, where, and what to do, for humans.
    pub message: String,
    /// The step that caused it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
}

impl Failure {
    /// A failure that no step is known to have caused.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), step: None }
    }
}

/// Failure codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The step exceeded its timeout.
    Timeout,
    /// No token was generated within the idle timeout.
    Idle,
    /// The prompt exceeds the model's context.
    ContextOverflow,
    /// The model could not be loaded, or its engine exited.
    ModelUnavailable,
    /// A Jinja template failed on these values.
    Template,
    /// A CEL condition failed on these values.
    Condition,
    /// No edge could be taken.
    NoEdge,
    /// A join waits for a node that can no longer arrive.
    JoinStuck,
    /// The graph's step limit was reached.
    LimitSteps,
    /// The graph's token limit was reached.
    LimitTokens,
    /// The graph's time limit was reached.
    LimitTime,
    /// The role's queue is full.
    QueueFull,
    /// The daemon or an actor stopped during the step.
    Interrupted,
    /// The output does not satisfy the role's schema.
    OutputInvalid,
    /// The router could not decide.
    Router,
    /// This step alone was cancelled, not its task.
    Cancelled,
    /// The answer deadline of a question passed.
    NoAnswer,
    /// The expression of a `for_each` gave no list, or more items than the node allows.
    Items,
    /// An internal fault of the daemon.
    Internal,
}

impl FailureCode {
    /// Whether a retry may succeed.
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

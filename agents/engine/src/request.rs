//! Requests to an engine and its responses.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::backend::Token;
use crate::request_origin::RequestOrigin;

pub use artel_chat::CallDelta;
pub use artel_model::sampling::{DryParams, XtcParams};
pub use artel_model::{
    ContextOverflow, FinishReason, ReasoningParams, SamplingOptions, SamplingParams, TokenLogprob, ToolCall, ToolSet,
    TopLogprob,
};

/// The role of a message in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatRole {
    /// The instructions.
    System,
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool that the model called.
    Tool,
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its author.
    pub role: ChatRole,
    /// Its text.
    pub text: String,
    /// The tools that the model called with it.
    pub calls: Vec<ToolCall>,
    /// The call whose result it is.
    pub answers: Option<ToolCall>,
}

impl Message {
    /// A text.
    pub fn new(role: ChatRole, text: impl Into<String>) -> Self {
        Self { role, text: text.into(), calls: Vec::new(), answers: None }
    }
}

/// The priority of a sequence, the highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Everything else waits for the router.
    Router,
    /// A client waits for the answer.
    Interactive,
    /// No client waits for the answer.
    Batch,
    /// Speculative prefill: the prefix of a prompt whose text is still being generated. It is computed beside decoding sequences
    /// and before background prefill, but never beside another prompt.
    Prefetch,
    /// Background prefill, when there is nothing else to do.
    Background,
}

impl Priority {
    /// Whether a client has requested the result; prefetch and background prefill serve requests that are still to come.
    pub(crate) fn is_requested(self) -> bool {
        self < Self::Prefetch
    }
}

/// LoRA adapters in GGUF form that apply together, each with its scale.
pub type ScaledAdapters = Vec<(PathBuf, f32)>;

/// A request to generate.
#[derive(Debug, Clone)]
pub struct Request {
    /// What it belongs to, for the log.
    pub origin: RequestOrigin,
    /// The key of fairness between sequences; a role's name.
    pub flow: Arc<str>,
    /// Its priority.
    pub priority: Priority,
    /// Steps that remain of its task after this one; of equals, the request of the task that is nearest to its end runs first.
    pub remaining_steps: u32,
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// Variables of the model's chat template, over those of the model.
    pub template_kwargs: Arc<Map<String, Value>>,
    /// The LoRA adapters that apply to it.
    pub adapters: ScaledAdapters,
    /// How tokens are sampled.
    pub sampling: SamplingParams,
    /// How many of the likeliest tokens are told at each place, with the probability of the token that came; none: nothing is.
    pub logprobs: Option<u32>,
    /// Whether other requests with the same prompt come at the same time: the prompt is computed once, and its cells are copied.
    pub shares_prompt: bool,
    /// Tokens to generate at most, at least 1; those of a reasoning count.
    pub max_tokens: u32,
    /// Texts that end the output; they are not part of it. An output with a schema ends with its JSON alone, and a reasoning with
    /// its own end.
    pub stop: Vec<String>,
    /// A JSON schema that the output must satisfy; an output that calls tools need not. It begins behind a reasoning.
    pub schema: Option<Arc<Value>>,
    /// The tools that the model may call, or must.
    pub tools: Option<Arc<ToolSet>>,
    /// What the model may do of its reasoning, if it has one. Whether it is shown is not the engine's matter.
    pub reasoning: ReasoningParams,
    /// What happens when prompt and output do not fit into the context.
    pub overflow: ContextOverflow,
    /// Whether everything before the text of its last message is the same for every task. If not, it may hold the text of a caller,
    /// and the engine can be told to [forget](crate::EngineHandle::forget_text) it.
    pub has_fixed_prefix: bool,
}

/// An item of an output stream. The last one is `Finished` or `Failed`.
#[derive(Debug, Clone, PartialEq)]
pub enum Chunk {
    /// Progress of the prefill.
    Prefill {
        /// Tokens computed so far.
        done: u32,
        /// Tokens of the prompt.
        total: u32,
    },
    /// More text.
    Text {
        /// Whole characters only.
        text: String,
        /// Tokens generated so far.
        tokens: u32,
        /// The tokens that begin in this text, if the request asks for them.
        logprobs: Vec<TokenLogprob>,
    },
    /// More of the reasoning, which comes before the text.
    Reasoning {
        /// Whole characters only.
        text: String,
        /// Tokens generated so far.
        tokens: u32,
    },
    /// Parts of calls of tools, never text.
    Calls(Vec<CallDelta>),
    /// Natural logarithms of the probabilities of the labels, in their order.
    Scores(Vec<f64>),
    /// The end.
    Finished(FinishSummary),
    /// The end, without success.
    Failed(Error),
}

/// How a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinishSummary {
    /// Why it ended.
    pub reason: FinishReason,
    /// Tokens it took.
    pub usage: RequestUsage,
    /// Time it took.
    pub timings: RequestTimings,
}

/// Tokens of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestUsage {
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Of these, the ones that were computed rather than taken from a cache.
    pub computed: u32,
    /// Tokens generated.
    pub output: u32,
    /// Of these, the ones that the schema or the end of a reasoning forced, which were not sampled.
    pub forced: u32,
    /// Of the tokens generated, the ones of the reasoning, from its opening mark to its closing one.
    pub reasoning: u32,
    /// Draft tokens that were computed.
    pub drafted: u32,
    /// Of these, the ones that were accepted.
    pub accepted: u32,
}

/// Time of one sequence, by phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestTimings {
    /// From the request to the first batch with a token of it.
    pub queue: Duration,
    /// From there to the first sampled token.
    pub prefill: Duration,
    /// From there to the end.
    pub decode: Duration,
    /// The longest inter-token latency: the time between two batches that gave it tokens.
    pub max_itl: Duration,
}

/// The scores of labels.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelScores {
    /// Natural logarithms of the probabilities, in the order of the labels; their exponentials add up to 1.
    pub scores: Vec<f64>,
    /// Tokens it took.
    pub usage: RequestUsage,
    /// Time it took.
    pub timings: RequestTimings,
}

impl LabelScores {
    /// The index of the likeliest label; the first of equal ones.
    pub fn best(&self) -> usize {
        let better = |best: usize, at: usize| if self.scores[at] > self.scores[best] { at } else { best };
        (0..self.scores.len()).reduce(better).unwrap_or(0)
    }
}

/// A prompt and an answer to it as tokens, as a model learns them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerTokens {
    /// What the model reads, with what its template begins an answer with.
    pub prompt: Vec<Token>,
    /// The answer, with the token that ends it last.
    pub answer: Vec<Token>,
}

/// Why an engine refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Prompt and output do not fit.
    #[error(
        "the prompt has {prompt} tokens and asks for {output} more, the context holds {context}: shorten the prompt, lower max_tokens, raise the model's context or set overflow: truncate or shift"
    )]
    Overflow {
        /// Tokens of the prompt.
        prompt: u32,
        /// Tokens asked for.
        output: u32,
        /// Tokens that fit.
        context: u32,
    },
    /// A text that is computed as a whole does not fit.
    #[error("{}", describe_long_text(*.index, *.tokens, *.limit))]
    TextTooLong {
        /// Which of the texts; `None` if the query alone leaves no room for a document.
        index: Option<usize>,
        /// Its tokens, with those that the model wants around it.
        tokens: u32,
        /// Tokens that fit.
        limit: u32,
    },
    /// This model cannot serve the request as it is.
    #[error("{0}")]
    InvalidRequest(String),
    /// The engine's own queue is full.
    #[error("the engine's queue of {0} sequences is full")]
    QueueFull(usize),
    /// The model failed on this sequence.
    #[error("the model failed: {0}")]
    Model(String),
    /// The engine has ended.
    #[error("the engine has ended: {0}")]
    Ended(String),
}

fn describe_long_text(index: Option<usize>, tokens: u32, limit: u32) -> String {
    match index {
        Some(index) => {
            format!("text {index} has {tokens} tokens, and the model takes {limit}: shorten it, or have it cut")
        }
        None => format!("the query takes {tokens} tokens, and the model {limit} for it and a document: shorten it"),
    }
}

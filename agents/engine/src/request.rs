//! What is asked of an engine and what it answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

/// Who says something in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The instructions.
    System,
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
}

/// A turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub speaker: Speaker,
    /// What is said.
    pub text: String,
}

/// How tokens are chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 always takes the likeliest token.
    pub temperature: f32,
    /// Keep the likeliest tokens that make up this share; 1 keeps all.
    pub top_p: f32,
    /// Keep so many of the likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep tokens with at least this share of the likeliest one's probability; 0 keeps all.
    pub min_p: f32,
    /// Divides the logits of tokens seen lately; 1 does nothing.
    pub repeat_penalty: f32,
    /// Makes the random numbers repeatable.
    pub seed: Option<u32>,
}

/// How urgent a sequence is; the first goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Everything else waits for the router.
    Router,
    /// Somebody waits for the answer.
    Interactive,
    /// Nobody does.
    Batch,
    /// The beginning of a prompt that is still being written, which is read along beside those who decode and before what
    /// is done ahead of time, but never beside another prompt.
    Along,
    /// It is done ahead of time, when there is nothing else to do.
    Ahead,
}

impl Class {
    /// Whether somebody has asked for its result; what is read along or done ahead of time is for those who will ask.
    pub(crate) fn is_asked_for(self) -> bool {
        self < Self::Along
    }
}

/// What happens to a prompt that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The request is refused.
    Reject,
    /// The middle of the last user message is left out.
    Truncate,
    /// A prompt is cut as by `Truncate` if it alone does not fit, and the output may outgrow the context: what came first
    /// after the opening is forgotten then. Models that cannot forget a part refuse as by `Reject`.
    Shift,
}

/// A generation.
#[derive(Debug, Clone)]
pub struct Request {
    /// What sequences are fair by; a role's name.
    pub flow: Arc<str>,
    /// How urgent it is.
    pub class: Class,
    /// Steps that its task must do after this one; of equals, whose task is soonest done goes first.
    pub left: u32,
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// A LoRA adapter in GGUF form and its scale.
    pub adapter: Option<(PathBuf, f32)>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens to generate at most, at least 1.
    pub max_tokens: u32,
    /// Texts that end the output; they are not part of it.
    pub stop: Vec<String>,
    /// A JSON schema that the output must satisfy.
    pub schema: Option<Arc<Value>>,
    /// What happens when prompt and output do not fit into the context.
    pub overflow: Overflow,
}

/// What comes back while a sequence runs. The last one is `Finished` or `Failed`.
#[derive(Debug, Clone, PartialEq)]
pub enum Chunk {
    /// So many prompt tokens of so many are computed.
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
    },
    /// Natural logarithms of the probabilities of the labels of a choice, in their order.
    Scores(Vec<f64>),
    /// The end.
    Finished(Finish),
    /// The end, without success.
    Failed(Error),
}

/// How a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// Why it ended.
    pub reason: Reason,
    /// Tokens it took.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The model was done, or its schema was.
    End,
    /// A stop text came.
    Stop,
    /// `max_tokens` are out.
    Length,
}

/// Tokens of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Of these, the ones that were computed rather than shared.
    pub computed: u32,
    /// Tokens generated.
    pub output: u32,
    /// Of these, the ones that the schema forced, which were not sampled.
    pub forced: u32,
    /// Tokens that were computed because they were likely to come next.
    pub drafted: u32,
    /// Of these, the ones that came.
    pub accepted: u32,
}

/// Where the time of one sequence went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// From the request to the first batch with a token of it.
    pub queue: Duration,
    /// From there to the first sampled token.
    pub prefill: Duration,
    /// From there to the end.
    pub decode: Duration,
    /// The longest time between two batches that gave it tokens.
    pub gap: Duration,
}

/// What became of a choice.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Natural logarithms of the probabilities, in the order of the labels; their exponentials add up to 1.
    pub scores: Vec<f64>,
    /// Tokens it took.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
}

impl Choice {
    /// The place of the likeliest label; the first of equal ones.
    pub fn best(&self) -> usize {
        let better = |best: usize, at: usize| if self.scores[at] > self.scores[best] { at } else { best };
        (0..self.scores.len()).reduce(better).unwrap_or(0)
    }
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
    /// Something in the request is of no use to this model.
    #[error("{0}")]
    Bad(String),
    /// The engine's own queue is full.
    #[error("the engine's queue of {0} sequences is full")]
    Busy(usize),
    /// The model failed on this sequence.
    #[error("the model failed: {0}")]
    Model(String),
    /// The engine has ended.
    #[error("the engine has ended: {0}")]
    Gone(String),
}

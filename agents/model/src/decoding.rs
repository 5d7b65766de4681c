//! How an output is decoded, and why it ends.

use serde::{Deserialize, Serialize};

/// How tokens are sampled.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 always takes the likeliest token.
    pub temperature: f32,
    /// Keeps the likeliest tokens that make up this share; 1 keeps all.
    pub top_p: f32,
    /// Keeps so many of the likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps tokens with at least this share of the likeliest one's probability; 0 keeps all.
    pub min_p: f32,
    /// Divides the logits of recent tokens; 1 does nothing.
    pub repeat_penalty: f32,
    /// Makes the random numbers repeatable; without it, they differ for each request.
    pub seed: Option<u32>,
}

impl SamplingParams {
    /// Always the likeliest token.
    pub const GREEDY: Self =
        Self { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, repeat_penalty: 1.0, seed: None };
}

impl Default for SamplingParams {
    /// Those of a role that names none.
    fn default() -> Self {
        Self { temperature: 0.7, top_p: 0.95, top_k: 40, min_p: 0.05, repeat_penalty: 1.0, seed: None }
    }
}

/// Why an output ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or its schema is complete.
    Stop,
    /// A stop text came.
    StopText,
    /// `max_tokens` are generated.
    Length,
    /// It calls tools, and waits for their results.
    Calls,
}

impl FinishReason {
    /// Its name in CEL, templates and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::StopText => "stop_text",
            Self::Length => "length",
            Self::Calls => "calls",
        }
    }
}

/// The handling of a prompt or an output that does not fit into the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContextOverflow {
    /// The request is refused.
    Reject,
    /// The middle of the last user message is left out.
    Truncate,
    /// Context shift: a prompt is cut as by `Truncate` if it alone does not fit, and the output may outgrow the context; the
    /// oldest tokens behind the prefix are discarded then. Models that cannot shift refuse as by `Reject`.
    Shift,
}

impl ContextOverflow {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Reject, Self::Truncate, Self::Shift];

    /// Its name in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Truncate => "truncate",
            Self::Shift => "shift",
        }
    }
}

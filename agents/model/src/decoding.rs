//! How an output is decoded, and why it ends.

use serde::{Deserialize, Serialize};

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

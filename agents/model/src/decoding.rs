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
    /// It was cancelled before its end.
    Cancelled,
}

impl FinishReason {
    /// Its name in CEL, templates and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::StopText => "stop_text",
            Self::Length => "length",
            Self::Calls => "calls",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What is said of the reasoning of a model: by a role, and within that by a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasoningParams {
    /// Whether it is shown: in events, and in the output beside the answer.
    pub show: bool,
    /// Whether the model may reason at all. If not, it is told so where its template can, and what it writes all the same ends at
    /// once.
    #[serde(rename = "enabled")]
    pub is_enabled: bool,
    /// The tokens after which its end is forced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<u32>,
}

impl ReasoningParams {
    /// Allows everything; what a request says that says nothing.
    pub const UNLIMITED: Self = Self { show: true, is_enabled: true, budget: None };

    /// What both allow.
    pub fn within(self, allowed: Self) -> Self {
        Self {
            show: self.show && allowed.show,
            is_enabled: self.is_enabled && allowed.is_enabled,
            budget: self.budget.into_iter().chain(allowed.budget).min(),
        }
    }

    /// The most tokens of it; none if there is no limit.
    pub fn max_tokens(self) -> Option<u32> {
        if self.is_enabled { self.budget } else { Some(0) }
    }
}

impl Default for ReasoningParams {
    /// That of a role that says nothing: the model reasons as it was taught, and the answer alone is shown.
    fn default() -> Self {
        Self { show: false, ..Self::UNLIMITED }
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

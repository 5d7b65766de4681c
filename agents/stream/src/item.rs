//! The items of a task's stream.

use std::sync::Arc;
use std::time::Duration;

use artel_task::event::TokenLogprob;
use artel_task::{Event, ModelName, RoleName, StepId};

/// An item of a task's stream.
#[derive(Debug, Clone)]
pub enum StreamItem {
    /// An event, journalled before it is published.
    Event(Arc<Event>),
    /// More text of a running step.
    Token {
        /// The attempt.
        step: StepId,
        /// The role that answers.
        role: RoleName,
        /// The new text.
        text: Arc<str>,
        /// Bytes of this attempt's text before this piece.
        offset: u64,
        /// How likely its tokens were, if that was asked for.
        logprobs: Option<Arc<[TokenLogprob]>>,
    },
    /// A part of a call of a tool.
    ToolCall {
        /// The attempt.
        step: StepId,
        /// The role that calls.
        role: RoleName,
        /// The number of the call in this attempt, from 0.
        index: u32,
        /// What is new.
        part: ToolCallPart,
    },
    /// More of the reasoning of a running step, which comes before its text.
    Reasoning {
        /// The attempt.
        step: StepId,
        /// The role that answers.
        role: RoleName,
        /// The new text.
        text: Arc<str>,
        /// Bytes of this attempt's reasoning before this piece.
        offset: u64,
    },
    /// How far a running step is.
    Progress {
        /// The attempt.
        step: StepId,
        /// The role that runs the step.
        role: RoleName,
        /// Its progress.
        progress: StepProgress,
    },
}

/// A part of a call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolCallPart {
    /// It begins.
    Begin {
        /// Its id.
        id: Arc<str>,
        /// The tool.
        name: Arc<str>,
    },
    /// More of its arguments.
    Arguments(Arc<str>),
    /// It is complete.
    End,
    /// It was no call: the text that it was taken for follows.
    Withdrawn,
}

impl StreamItem {
    /// The attempt that it is of; none for an event.
    pub(crate) fn step(&self) -> Option<&StepId> {
        match self {
            Self::Event(_) => None,
            Self::Token { step, .. }
            | Self::ToolCall { step, .. }
            | Self::Reasoning { step, .. }
            | Self::Progress { step, .. } => Some(step),
        }
    }

    /// Whether it is for subscribers of tokens alone.
    pub(crate) fn is_of_tokens(&self) -> bool {
        matches!(self, Self::Token { .. } | Self::ToolCall { .. } | Self::Reasoning { .. })
    }
}

/// The progress of a running step.
#[derive(Debug, Clone, PartialEq)]
pub enum StepProgress {
    /// It waits in its role's queue.
    Queued {
        /// Its position; 1 is the next.
        position: u32,
    },
    /// It waits for its model.
    Loading {
        /// The model.
        model: ModelName,
        /// The fraction of it that is downloaded, or loaded.
        fraction: f32,
    },
    /// Its prompt is computed.
    Prefill {
        /// Prompt tokens that are computed.
        done_tokens: u32,
        /// Prompt tokens in all.
        total_tokens: u32,
    },
    /// Its answer is generated.
    Decode {
        /// Tokens so far.
        tokens: u32,
        /// Time since the first token.
        elapsed: Duration,
    },
}

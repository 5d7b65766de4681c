//! The parts of a task's answer, as the endpoints write them.

use artel_proto::v1;

use crate::api_error::ApiError;

/// What is known of an answer from the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AnswerHead {
    /// The id of the task.
    pub(crate) task: String,
    /// When it was accepted, in seconds since 1970.
    pub(crate) created: u64,
    pub(crate) catalog_version: String,
}

/// A part of an answer. After `Finished` and `Failed`, nothing follows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AnswerPart {
    /// What happened in the graph, as one line for people; only with `EventsMode::Comments`.
    Step(String),
    /// The same as a part of the reasoning; only with `EventsMode::Reasoning`.
    StepThought(String),
    /// More of the reasoning.
    Reasoning(String),
    /// More of the text. One of both may be empty.
    Text { text: String, logprobs: Vec<v1::TokenLogprob> },
    /// A call of a tool begins. Indices count from 0 in the order of the calls.
    CallBegin { index: u32, id: String, name: String },
    /// More of the arguments of a call.
    CallArguments { index: u32, text: String },
    /// The end. The parts before it add up to its output.
    Finished(Box<FinishedAnswer>),
    /// There is no answer, or not the whole of it.
    Failed(ApiError),
}

impl AnswerPart {
    /// Whether nothing follows it.
    pub(crate) fn is_last(&self) -> bool {
        matches!(self, Self::Finished(_) | Self::Failed(_))
    }
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FinishedAnswer {
    pub(crate) output: v1::Output,
    /// The tokens of all steps together.
    pub(crate) usage: v1::Usage,
    pub(crate) finish: AnswerFinish,
}

impl FinishedAnswer {
    /// All answers, the alternatives behind the one that was streamed.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (&v1::Output, AnswerFinish)> {
        let others = self.output.alternatives.iter().map(|output| (output, AnswerFinish::of(output)));
        std::iter::once((&self.output, self.finish)).chain(others)
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerFinish {
    Stop,
    Length,
    Calls,
}

impl AnswerFinish {
    /// Why this output ended.
    pub(crate) fn of(output: &v1::Output) -> Self {
        match output.finish.map(|_| output.finish()) {
            Some(v1::FinishReason::Length) => Self::Length,
            _ if !output.calls.is_empty() => Self::Calls,
            _ => Self::Stop,
        }
    }
}

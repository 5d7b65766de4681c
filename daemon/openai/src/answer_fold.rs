//! From the events of a task to the parts of its answer.
//!
//! Tokens are live only: a slow reader misses some, and a step that is run again begins anew. What was sent stays sent, so that
//! the fold tracks it: a new attempt sends nothing until it is beyond that, a gap is filled from the final output, and the parts
//! add up to that output. If an attempt writes something else than what was sent, the answer fails.

mod sent_calls;
mod sent_text;
mod step_lines;

use artel_proto::v1;
use artel_proto::v1::event::Kind as K;

use crate::answer::{AnswerFinish, AnswerPart, FinishedAnswer};
use crate::api_error::ApiError;
use crate::run_options::EventsMode;
use sent_calls::SentCalls;
use sent_text::{AnswerChanged, SentText};
use step_lines::step_line;

/// The nodes of a task whose text is its answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum AnsweringNodes {
    /// It has one node alone.
    Every,
    /// These of a graph.
    Named(Vec<String>),
    /// None is known: the text comes at the end.
    #[default]
    Unknown,
}

impl AnsweringNodes {
    fn contains(&self, node: &str) -> bool {
        match self {
            Self::Every => true,
            Self::Named(nodes) => nodes.iter().any(|named| named == node),
            Self::Unknown => false,
        }
    }
}

/// The state of an answer.
#[derive(Debug, Default)]
pub(crate) struct AnswerFold {
    task: String,
    nodes: AnsweringNodes,
    events: EventsMode,
    /// Whether parts are wanted before the end.
    is_streamed: bool,
    /// The attempt whose tokens come.
    attempt: String,
    text: SentText,
    reasoning: SentText,
    /// Whether an attempt reasons differently than one before it, so that no more of it is sent.
    has_other_reasoning: bool,
    calls: SentCalls,
    logprobs: SentLogprobs,
    usage: v1::Usage,
    /// Whether the last part was given.
    is_over: bool,
    /// Whether the task does nothing more: it ended, is set aside, or waits for a restart of the daemon.
    has_stopped: bool,
}

/// How many of the tokens' likelihoods were sent.
#[derive(Debug, Default)]
struct SentLogprobs {
    sent: usize,
    /// Of the current attempt.
    seen: usize,
}

impl SentLogprobs {
    /// Those of more tokens that were not sent.
    fn advance(&mut self, tokens: Vec<v1::TokenLogprob>) -> Vec<v1::TokenLogprob> {
        let known = self.sent.saturating_sub(self.seen);
        self.seen += tokens.len();
        self.sent = self.sent.max(self.seen);
        tokens.into_iter().skip(known).collect()
    }
}

impl AnswerFold {
    /// The answer of a task of which nothing was sent.
    pub(crate) fn new(task: String, nodes: AnsweringNodes, events: EventsMode, is_streamed: bool) -> Self {
        Self { task, nodes, events, is_streamed, ..Self::default() }
    }

    /// Whether the task does nothing more, so that it need not be cancelled.
    pub(crate) fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    /// The parts that follow from an event.
    pub(crate) fn push(&mut self, event: v1::Event) -> Vec<AnswerPart> {
        let Some(kind) = event.kind.filter(|_| !self.is_over) else { return Vec::new() };
        let mut parts: Vec<_> = self.step(&kind).into_iter().collect();
        match self.answer(kind) {
            Ok(more) => parts.extend(more),
            Err(AnswerChanged) => parts.push(AnswerPart::Failed(ApiError::answer_changed(&self.task))),
        }
        self.is_over = parts.iter().any(AnswerPart::is_last);
        parts
    }

    /// The part of a stream that ended before the task did.
    pub(crate) fn interrupt(&mut self, error: Option<ApiError>) -> AnswerPart {
        self.is_over = true;
        self.has_stopped = error.as_ref().is_some_and(ApiError::is_of_stopping_daemon);
        AnswerPart::Failed(error.unwrap_or_else(|| ApiError::interrupted(&self.task)).with_task(&*self.task))
    }

    /// What is told of a step.
    fn step(&self, kind: &K) -> Option<AnswerPart> {
        match self.events {
            EventsMode::Off => None,
            _ if !self.is_streamed => None,
            EventsMode::Comments => step_line(kind).map(AnswerPart::Step),
            EventsMode::Reasoning => step_line(kind).map(|line| AnswerPart::StepThought(line + "\n")),
        }
    }

    fn answer(&mut self, kind: K) -> Result<Vec<AnswerPart>, AnswerChanged> {
        Ok(match kind {
            K::Token(token) if self.is_answer(&token.node, &token.step_id) => self.token(token)?.into_iter().collect(),
            K::Reasoning(more) if self.is_answer(&more.node, &more.step_id) => {
                self.reasoning(&more).into_iter().collect()
            }
            K::ToolCallDelta(delta) if self.is_answer(&delta.node, &delta.step_id) => {
                self.calls.push(delta)?.into_iter().collect()
            }
            K::StepFinished(step) => {
                self.usage += &step.usage.unwrap_or_default();
                Vec::new()
            }
            K::Completed(done) => {
                self.has_stopped = true;
                self.finish(done.output.unwrap_or_default())?
            }
            K::Failed(failed) => {
                self.has_stopped = true;
                vec![AnswerPart::Failed(ApiError::from_failure(&failed.failure.unwrap_or_default(), &self.task))]
            }
            K::Cancelled(cancelled) => {
                self.has_stopped = true;
                vec![AnswerPart::Failed(ApiError::cancelled(&self.task, &cancelled.reason))]
            }
            K::SetAside(aside) => {
                self.has_stopped = true;
                vec![AnswerPart::Failed(ApiError::set_aside(&self.task, &aside.reason))]
            }
            _ => Vec::new(),
        })
    }

    /// Whether a part of this attempt belongs to the answer and is wanted. Notes if it is another attempt than before.
    fn is_answer(&mut self, node: &str, attempt: &str) -> bool {
        if !self.is_streamed || !self.nodes.contains(node) {
            return false;
        }
        if self.attempt != attempt {
            attempt.clone_into(&mut self.attempt);
            self.text.restart();
            self.reasoning.restart();
            self.calls.restart();
            self.logprobs.seen = 0;
        }
        true
    }

    fn token(&mut self, token: v1::Token) -> Result<Option<AnswerPart>, AnswerChanged> {
        let text = self.text.advance(token.offset, &token.text)?;
        // Behind a gap, it is not known which tokens were sent.
        let logprobs = if self.text.has_gap() { Vec::new() } else { self.logprobs.advance(token.logprobs) };
        let is_empty = text.is_empty() && logprobs.is_empty();
        Ok((!is_empty).then_some(AnswerPart::Text { text, logprobs }))
    }

    /// Another attempt may reason otherwise: that does not make the answer another one.
    fn reasoning(&mut self, more: &v1::Reasoning) -> Option<AnswerPart> {
        if self.has_other_reasoning {
            return None;
        }
        match self.reasoning.advance(more.offset, &more.text) {
            Ok(text) => (!text.is_empty()).then_some(AnswerPart::Reasoning(text)),
            Err(AnswerChanged) => {
                self.has_other_reasoning = true;
                None
            }
        }
    }

    /// What is not sent yet, and the end.
    fn finish(&mut self, output: v1::Output) -> Result<Vec<AnswerPart>, AnswerChanged> {
        let mut parts = Vec::new();
        let mut finish = AnswerFinish::of(&output);
        if self.is_streamed {
            let reasoning = self.reasoning.rest(&output.reasoning).unwrap_or_default();
            if !reasoning.is_empty() && !self.has_other_reasoning {
                parts.push(AnswerPart::Reasoning(reasoning.to_owned()));
            }
            let text = self.text.rest(&output.text)?.to_owned();
            let logprobs = output.logprobs.as_ref().map(|all| all.tokens.as_slice()).unwrap_or_default();
            let logprobs = logprobs.get(self.logprobs.sent..).unwrap_or_default().to_vec();
            if !text.is_empty() || !logprobs.is_empty() {
                parts.push(AnswerPart::Text { text, logprobs });
            }
            parts.append(&mut self.calls.rest(&output.calls)?);
            if self.calls.has_withdrawn() {
                finish = AnswerFinish::Length;
            }
        }
        parts.push(AnswerPart::Finished(Box::new(FinishedAnswer { output, usage: self.usage, finish })));
        Ok(parts)
    }
}

#[cfg(test)]
mod tests;

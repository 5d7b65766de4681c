//! Writes the parts of an answer as a response, whole or as a stream of events.

use artel_proto::v1;
use serde_json::Value;

use super::fault::renamed;
use super::object::ResponseHead;
use super::sequence::EventSequence;
use crate::answer::{AnswerFinish, AnswerPart, FinishedAnswer};
use crate::answer_json::logprobs;
use crate::sse::{self, StreamWriter};

/// Writes a stream. It ends with the event that ends the response: there is no `[DONE]` here.
pub(super) struct ResponseWriter {
    sequence: EventSequence,
}

impl ResponseWriter {
    pub(super) fn new(head: ResponseHead) -> Self {
        Self { sequence: EventSequence::new(head) }
    }
}

impl StreamWriter<AnswerPart> for ResponseWriter {
    fn begin(&mut self) -> String {
        lines(&self.sequence.begin())
    }

    fn write(&mut self, part: AnswerPart) -> String {
        let events = match part {
            AnswerPart::Step(line) => return sse::comment(&line),
            AnswerPart::Reasoning(text) | AnswerPart::StepThought(text) => self.sequence.reasoning(&text),
            AnswerPart::Text { text, logprobs } => self.sequence.text(&text, probabilities(&logprobs)),
            AnswerPart::CallBegin { index, id, name } => self.sequence.call_begins(index, id, name),
            AnswerPart::CallArguments { index, text } => self.sequence.call_arguments(index, &text),
            AnswerPart::Finished(answer) => {
                let FinishedAnswer { output, usage, finish } = *answer;
                self.sequence.cite(output.citations);
                self.sequence.finish(&usage, finish == AnswerFinish::Length)
            }
            AnswerPart::Failed(error) => self.sequence.fail(&renamed(error)),
        };
        lines(&events)
    }

    /// A data event: clients of responses do not count comments as signs of life.
    fn idle(&mut self) -> String {
        lines(&[self.sequence.in_progress()])
    }
}

/// The response of an answer that was not streamed.
pub(super) fn whole(head: ResponseHead, answer: FinishedAnswer) -> Value {
    let FinishedAnswer { output, usage, finish } = answer;
    let v1::Output { text, reasoning, calls, logprobs, citations, .. } = output;
    let mut sequence = EventSequence::new(head);
    if !reasoning.is_empty() {
        sequence.reasoning(&reasoning);
    }
    if !text.is_empty() {
        sequence.text(&text, probabilities(&logprobs.unwrap_or_default().tokens));
    }
    for (index, call) in (0..).zip(calls) {
        sequence.call_begins(index, call.id, call.name);
        sequence.call_arguments(index, &call.arguments);
    }
    sequence.cite(citations);
    let last = sequence.finish(&usage, finish == AnswerFinish::Length).pop();
    last.map(|mut event| event["response"].take()).unwrap_or_default()
}

/// How likely tokens were, as chat completions write it.
fn probabilities(tokens: &[v1::TokenLogprob]) -> Vec<Value> {
    if tokens.is_empty() {
        return Vec::new();
    }
    match logprobs(tokens)["content"].take() {
        Value::Array(entries) => entries,
        _ => Vec::new(),
    }
}

fn lines(events: &[Value]) -> String {
    let line = |event: &Value| format!("event: {}\n{}", event["type"].as_str().unwrap_or_default(), sse::data(event));
    events.iter().map(line).collect()
}

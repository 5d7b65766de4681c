//! The stream of a chat completion.

use artel_proto::v1;
use serde_json::{Value, json};

use super::message::message;
use super::request::StreamOptions;
use crate::answer::{AnswerFinish, AnswerHead, AnswerPart, FinishedAnswer};
use crate::answer_json::{AnswerNotes, fingerprint, finish_word, logprobs, usage};
use crate::sse::{StreamWriter, comment, data};

/// Writes the parts of an answer as chunks.
pub(super) struct ChunkWriter {
    /// What all chunks have in common.
    id: String,
    created: u64,
    model: String,
    fingerprint: String,
    options: StreamOptions,
    notes: AnswerNotes,
}

impl ChunkWriter {
    pub(super) fn new(head: &AnswerHead, model: &str, options: StreamOptions, notes: AnswerNotes) -> Self {
        let (id, fingerprint) = (format!("chatcmpl-{}", head.task), fingerprint(head));
        Self { id, created: head.created, model: model.to_owned(), fingerprint, options, notes }
    }

    /// A chunk with these choices.
    fn chunk(&self, choices: &Value) -> Value {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        });
        if self.options.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// The chunk of a choice that goes on.
    fn delta(&self, index: usize, delta: &Value, tokens: &[v1::TokenLogprob]) -> String {
        let logprobs = (self.options.has_logprobs && !tokens.is_empty()).then(|| logprobs(tokens));
        let choice = json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null});
        data(&self.chunk(&json!([choice])))
    }

    /// The last chunk of a choice, with the notes if it is the last one of the stream.
    fn finish(&self, index: usize, finish: AnswerFinish, notes: Option<Value>) -> String {
        let choice = json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": finish_word(finish)});
        let mut chunk = self.chunk(&json!([choice]));
        if let Some(notes) = notes {
            chunk["artel"] = notes;
        }
        data(&chunk)
    }

    /// The ends of all choices: the others than the first come as a whole.
    fn finished(&self, finished: &FinishedAnswer) -> String {
        let FinishedAnswer { output, usage: used, finish } = finished;
        let others = output.alternatives.len();
        let notes = |index: usize| {
            (index == others && !self.options.include_usage).then(|| self.notes.with_citations(&output.citations))
        };
        let mut lines = self.finish(0, *finish, notes(0));
        for (index, other) in (1..).zip(&output.alternatives) {
            let tokens = other.logprobs.as_ref().map(|all| all.tokens.as_slice()).unwrap_or_default();
            lines += &self.delta(index, &alternative(other), tokens);
            lines += &self.finish(index, AnswerFinish::of(other), notes(index));
        }
        if self.options.include_usage {
            let mut chunk = self.chunk(&json!([]));
            chunk["usage"] = usage(used);
            chunk["artel"] = self.notes.with_citations(&output.citations);
            lines += &data(&chunk);
        }
        lines
    }
}

/// A whole message as one delta: its calls have indices.
fn alternative(output: &v1::Output) -> Value {
    let mut delta = message(output);
    if let Some(calls) = delta.get_mut("tool_calls").and_then(Value::as_array_mut) {
        for (index, call) in calls.iter_mut().enumerate() {
            call["index"] = index.into();
        }
    }
    delta
}

impl StreamWriter<AnswerPart> for ChunkWriter {
    fn begin(&mut self) -> String {
        self.delta(0, &json!({"role": "assistant", "content": "", "refusal": null}), &[])
    }

    fn write(&mut self, part: AnswerPart) -> String {
        match part {
            AnswerPart::Step(line) => comment(&line),
            AnswerPart::Reasoning(text) | AnswerPart::StepThought(text) => {
                self.delta(0, &json!({"reasoning_content": text, "reasoning": text}), &[])
            }
            AnswerPart::Text { text, logprobs } => self.delta(0, &json!({ "content": text }), &logprobs),
            AnswerPart::CallBegin { index, id, name } => {
                let function = json!({"name": name, "arguments": ""});
                let call = json!({"index": index, "id": id, "type": "function", "function": function});
                self.delta(0, &json!({ "tool_calls": [call] }), &[])
            }
            AnswerPart::CallArguments { index, text } => {
                let call = json!({"index": index, "function": {"arguments": text}});
                self.delta(0, &json!({ "tool_calls": [call] }), &[])
            }
            AnswerPart::Finished(finished) => self.finished(&finished),
            AnswerPart::Failed(error) => data(&error.to_json()),
        }
    }

    fn end(&mut self) -> String {
        "data: [DONE]\n\n".to_owned()
    }
}

//! What the running attempts have streamed so far, for subscribers that come late.

use std::collections::BTreeMap;
use std::sync::Arc;

use artel_task::event::{FinishReason, MAX_LOGPROBS_BYTES, Output, PartialOutput, TokenLogprob, ToolCall};
use artel_task::{RoleName, StepId};

use crate::item::{StreamItem, ToolCallPart};

/// The most text of one item: with all probabilities of an output, it fits into a message.
const MAX_PIECE_BYTES: usize = 1024 * 1024;

/// The outputs of the running attempts. Each is as long as an output may be, and goes with the end of its attempt.
#[derive(Default)]
pub(crate) struct LiveOutputs(BTreeMap<StepId, LiveOutput>);

struct LiveOutput {
    role: RoleName,
    reasoning: String,
    text: String,
    logprobs: Vec<TokenLogprob>,
    logprobs_bytes: usize,
    calls: BTreeMap<u32, LiveCall>,
}

/// A call of a tool, as far as it is written.
struct LiveCall {
    id: Arc<str>,
    name: Arc<str>,
    arguments: String,
    is_complete: bool,
}

impl LiveOutputs {
    /// Adds what an item says more.
    pub(crate) fn add(&mut self, item: &StreamItem) {
        match item {
            StreamItem::Token { step, role, text, logprobs, .. } => {
                let output = self.output(step, role);
                output.text.push_str(text);
                output.add_logprobs(logprobs.as_deref().unwrap_or_default());
            }
            StreamItem::Reasoning { step, role, text, .. } => self.output(step, role).reasoning.push_str(text),
            StreamItem::ToolCall { step, role, index, part } => self.output(step, role).add_to_call(*index, part),
            StreamItem::Event(_) | StreamItem::Progress { .. } => {}
        }
    }

    /// Keeps those of the attempts for which this holds.
    pub(crate) fn retain(&mut self, mut runs: impl FnMut(&StepId) -> bool) {
        self.0.retain(|step, _| runs(step));
    }

    /// What a new subscriber is told of them: everything, from the first character on.
    pub(crate) fn items(&self) -> Vec<StreamItem> {
        self.0.iter().flat_map(|(step, output)| output.items(step)).collect()
    }

    /// What the attempts have written for which this holds, as far as it fits into so many bytes together.
    pub(crate) fn partial(&self, holds: impl Fn(&StepId) -> bool, mut left_bytes: usize) -> Vec<PartialOutput> {
        let all = self.0.iter().filter(|(step, _)| holds(step));
        let all = all.map(|(step, output)| PartialOutput { step: step.clone(), output: output.partial() });
        let fits = |partial: &PartialOutput| match left_bytes.checked_sub(partial.output.max_encoded_len()) {
            Some(left) => {
                left_bytes = left;
                true
            }
            None => false,
        };
        all.filter(fits).collect()
    }

    fn output(&mut self, step: &StepId, role: &RoleName) -> &mut LiveOutput {
        // Most pieces belong to an attempt that is known.
        if !self.0.contains_key(step) {
            self.0.insert(step.clone(), LiveOutput::new(role.clone()));
        }
        self.0.get_mut(step).expect("it was just added")
    }
}

impl LiveOutput {
    fn new(role: RoleName) -> Self {
        let (reasoning, text, logprobs, logprobs_bytes, calls) = Default::default();
        Self { role, reasoning, text, logprobs, logprobs_bytes, calls }
    }

    /// Keeps as many as an output has.
    fn add_logprobs(&mut self, tokens: &[TokenLogprob]) {
        for token in tokens {
            self.logprobs_bytes = self.logprobs_bytes.saturating_add(token.max_encoded_len());
            if self.logprobs_bytes <= MAX_LOGPROBS_BYTES {
                self.logprobs.push(token.clone());
            }
        }
    }

    fn add_to_call(&mut self, index: u32, part: &ToolCallPart) {
        match part {
            ToolCallPart::Begin { id, name } => {
                let (id, name, arguments) = (id.clone(), name.clone(), String::new());
                self.calls.insert(index, LiveCall { id, name, arguments, is_complete: false });
            }
            ToolCallPart::Withdrawn => drop(self.calls.remove(&index)),
            ToolCallPart::Arguments(more) => {
                if let Some(call) = self.calls.get_mut(&index) {
                    call.arguments.push_str(more);
                }
            }
            ToolCallPart::End => {
                if let Some(call) = self.calls.get_mut(&index) {
                    call.is_complete = true;
                }
            }
        }
    }

    /// The output as it would be if it ended here. A call that is not complete is none.
    fn partial(&self) -> Output {
        let complete = self.calls.values().filter(|call| call.is_complete);
        let call = |call: &LiveCall| ToolCall {
            id: call.id.to_string(),
            name: call.name.to_string(),
            arguments: call.arguments.clone(),
        };
        Output {
            role: Some(self.role.clone()),
            finish: Some(FinishReason::Cancelled),
            reasoning: Some(self.reasoning.clone()).filter(|text| !text.is_empty()),
            calls: complete.map(call).collect(),
            ..Output::text(self.text.as_str())
        }
    }

    fn items(&self, step: &StepId) -> Vec<StreamItem> {
        let mut items = Vec::new();
        if !self.reasoning.is_empty() {
            let (step, role, text) = (step.clone(), self.role.clone(), self.reasoning.as_str().into());
            items.push(StreamItem::Reasoning { step, role, text, offset: 0 });
        }
        let (mut offset, mut logprobs) = (0, (!self.logprobs.is_empty()).then(|| self.logprobs.as_slice().into()));
        while offset < self.text.len() {
            let rest = &self.text[offset..];
            let piece = &rest[..rest.floor_char_boundary(MAX_PIECE_BYTES)];
            let (step, role, text) = (step.clone(), self.role.clone(), piece.into());
            items.push(StreamItem::Token { step, role, text, offset: offset as u64, logprobs: logprobs.take() });
            offset += piece.len();
        }
        for (index, call) in &self.calls {
            let begin = ToolCallPart::Begin { id: call.id.clone(), name: call.name.clone() };
            let arguments = Some(&call.arguments).filter(|text| !text.is_empty());
            let arguments = arguments.map(|text| ToolCallPart::Arguments(text.as_str().into()));
            let end = call.is_complete.then_some(ToolCallPart::End);
            items.extend([Some(begin), arguments, end].into_iter().flatten().map(|part| {
                let (step, role, index) = (step.clone(), self.role.clone(), *index);
                StreamItem::ToolCall { step, role, index, part }
            }));
        }
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_subscriber_is_told_everything_once_and_nothing_of_attempts_that_ended() {
        let (step, role) = (|name: &str| StepId::parse(name).unwrap(), || RoleName::parse("r").unwrap());
        let token = |name: &str, text: &str, offset| StreamItem::Token {
            step: step(name),
            role: role(),
            text: text.into(),
            offset,
            logprobs: Some(vec![TokenLogprob::forced(text.as_bytes().to_vec())].into()),
        };
        let call = |index, part| StreamItem::ToolCall { step: step("a#1.1"), role: role(), index, part };
        let begin = || ToolCallPart::Begin { id: "id".into(), name: "get".into() };
        let mut outputs = LiveOutputs::default();
        for item in [
            StreamItem::Reasoning { step: step("a#1.1"), role: role(), text: "Hm.".into(), offset: 0 },
            token("b#1.1", "Over.", 0),
            token("a#1.1", "He", 0),
            token("a#1.1", "llo", 2),
            call(0, begin()),
            call(0, ToolCallPart::Arguments("{\"a\":".into())),
            call(0, ToolCallPart::Arguments("1}".into())),
            call(0, ToolCallPart::End),
            call(1, begin()),
            call(1, ToolCallPart::Withdrawn),
        ] {
            outputs.add(&item);
        }
        outputs.retain(|running| *running == step("a#1.1"));
        let items = outputs.items();
        let [
            StreamItem::Reasoning { text: reasoning, .. },
            StreamItem::Token { text, offset: 0, logprobs, .. },
            calls @ ..,
        ] = items.as_slice()
        else {
            panic!("{items:?}")
        };
        assert_eq!((&**reasoning, &**text, logprobs.as_ref().unwrap().len()), ("Hm.", "Hello", 2));
        let parts: Vec<&ToolCallPart> = calls
            .iter()
            .filter_map(|item| if let StreamItem::ToolCall { part, .. } = item { Some(part) } else { None })
            .collect();
        let partial = outputs.partial(|_| true, 1000);
        let [PartialOutput { output, .. }] = partial.as_slice() else { panic!("{partial:?}") };
        assert_eq!(
            (output.text.as_str(), output.finish, output.calls.len()),
            ("Hello", Some(FinishReason::Cancelled), 1)
        );
        assert!(outputs.partial(|_| true, 3).is_empty() && outputs.partial(|_| false, 1000).is_empty());
        assert_eq!(parts, [&begin(), &ToolCallPart::Arguments("{\"a\":1}".into()), &ToolCallPart::End]);
    }

    /// A message has a limit, and an output has one for its probabilities.
    #[test]
    fn a_long_text_comes_in_pieces_and_its_probabilities_are_bounded() {
        let (step, role) = (StepId::parse("a#1.1").unwrap(), RoleName::parse("r").unwrap());
        let mut outputs = LiveOutputs::default();
        let text: Arc<str> = "ä".repeat(MAX_PIECE_BYTES / 4).into();
        let tokens: Arc<[TokenLogprob]> = vec![TokenLogprob::forced(vec![0; 1 << 16]); 8].into();
        for offset in 0..5 {
            let (step, role, text, logprobs) = (step.clone(), role.clone(), text.clone(), Some(tokens.clone()));
            outputs.add(&StreamItem::Token {
                step,
                role,
                text,
                offset: offset * (MAX_PIECE_BYTES as u64 / 2),
                logprobs,
            });
        }
        let (mut written, mut known) = (String::new(), 0);
        for item in outputs.items() {
            let StreamItem::Token { text, offset, logprobs, .. } = item else { panic!("{item:?}") };
            assert!(offset == written.len() as u64 && text.len() <= MAX_PIECE_BYTES);
            written.push_str(&text);
            known += logprobs.iter().flat_map(|tokens| tokens.iter()).map(TokenLogprob::max_encoded_len).sum::<usize>();
        }
        assert_eq!(written, text.repeat(5));
        assert!(known > MAX_LOGPROBS_BYTES / 2 && known <= MAX_LOGPROBS_BYTES, "{known}");
    }
}

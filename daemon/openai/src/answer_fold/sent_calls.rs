//! The calls of tools that were sent, and the attempts that make them.

use artel_proto::v1;
use artel_proto::v1::tool_call_delta::Part;

use super::sent_text::{AnswerChanged, SentText};
use crate::answer::AnswerPart;

/// A call that was begun for the client. Its id stays that of the first attempt: another one draws another id.
#[derive(Debug)]
struct SentCall {
    name: String,
    arguments: SentText,
    is_complete: bool,
    /// It was none after all. Clients cannot be told.
    is_withdrawn: bool,
}

/// The calls that were sent. A client's indices are the places in this list: a call that is withdrawn keeps its own.
#[derive(Debug, Default)]
pub(super) struct SentCalls {
    calls: Vec<SentCall>,
    /// How many the current attempt has begun, and how many of them stand.
    begun: usize,
    standing: u32,
    is_open: bool,
    /// Whether a part of the current attempt was missed.
    has_gap: bool,
}

impl SentCalls {
    /// A new attempt begins.
    pub(super) fn restart(&mut self) {
        (self.begun, self.standing, self.is_open, self.has_gap) = (0, 0, false, false);
    }

    /// Whether the client has a call that is none.
    pub(super) fn has_withdrawn(&self) -> bool {
        self.calls.iter().any(|call| call.is_withdrawn)
    }

    /// Takes a part of a call; what of it was not sent.
    pub(super) fn push(&mut self, delta: v1::ToolCallDelta) -> Result<Option<AnswerPart>, AnswerChanged> {
        let Some(part) = delta.part else { return Ok(None) };
        let is_begin = matches!(part, Part::Begin(_));
        self.has_gap |= delta.index != self.standing || is_begin == self.is_open;
        if self.has_gap {
            return Ok(None);
        }
        match part {
            Part::Begin(begin) => self.begin(begin),
            Part::Arguments(text) => self.arguments(&text),
            Part::End(_) => {
                self.standing += 1;
                self.end(false);
                Ok(None)
            }
            Part::Withdrawn(_) => {
                self.end(true);
                Ok(None)
            }
        }
    }

    fn begin(&mut self, begin: v1::ToolCallBegin) -> Result<Option<AnswerPart>, AnswerChanged> {
        let place = self.begun;
        self.begun += 1;
        self.is_open = true;
        let v1::ToolCallBegin { id, name } = begin;
        if let Some(call) = self.calls.get_mut(place) {
            if call.name != name {
                return Err(AnswerChanged);
            }
            call.arguments.restart();
            (call.is_complete, call.is_withdrawn) = (false, false);
            return Ok(None);
        }
        self.calls.push(SentCall {
            name: name.clone(),
            arguments: SentText::default(),
            is_complete: false,
            is_withdrawn: false,
        });
        Ok(Some(AnswerPart::CallBegin { index: number(place), id, name }))
    }

    fn arguments(&mut self, text: &str) -> Result<Option<AnswerPart>, AnswerChanged> {
        let place = self.begun.saturating_sub(1);
        let Some(call) = self.calls.get_mut(place) else { return Ok(None) };
        let offset = call.arguments.matched();
        let text = call.arguments.advance(offset, text)?;
        Ok((!text.is_empty()).then(|| AnswerPart::CallArguments { index: number(place), text }))
    }

    fn end(&mut self, is_withdrawn: bool) {
        self.is_open = false;
        if let Some(call) = self.calls.get_mut(self.begun.saturating_sub(1)) {
            (call.is_complete, call.is_withdrawn) = (!is_withdrawn, is_withdrawn);
        }
    }

    /// What of these calls was not sent.
    pub(super) fn rest(&mut self, whole: &[v1::ToolCall]) -> Result<Vec<AnswerPart>, AnswerChanged> {
        let mut whole = whole.iter();
        let mut parts = Vec::new();
        for (place, sent) in self.calls.iter_mut().enumerate().filter(|(_, sent)| !sent.is_withdrawn) {
            let Some(call) = whole.next() else {
                // One that was cut is none.
                if sent.is_complete {
                    return Err(AnswerChanged);
                }
                sent.is_withdrawn = true;
                continue;
            };
            if sent.name != call.name {
                return Err(AnswerChanged);
            }
            let text = sent.arguments.rest(&call.arguments)?.to_owned();
            if !text.is_empty() {
                parts.push(AnswerPart::CallArguments { index: number(place), text });
            }
        }
        for (place, call) in (self.calls.len()..).zip(whole) {
            let (index, v1::ToolCall { id, name, arguments }) = (number(place), call.clone());
            parts.push(AnswerPart::CallBegin { index, id, name });
            parts.push(AnswerPart::CallArguments { index, text: arguments });
        }
        Ok(parts)
    }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

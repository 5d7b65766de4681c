//! Where the first call begins in what a model writes, so that from there on it is held to the form of calls.

use super::format::CallFormat;
use super::literal::{self, Match};

/// Watches what a model writes for the beginning of a call.
#[derive(Debug, Clone)]
pub struct CallTrigger {
    openings: Vec<(String, bool)>,
    /// What was written last, as far as it may be the beginning of a call.
    tail: Vec<u8>,
    /// Whether text was written before it.
    is_after_text: bool,
}

/// What a [`CallTrigger`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriggerMatch {
    /// No call, and no beginning of one.
    Text,
    /// The last so many bytes may be the beginning of a call.
    Held(usize),
    /// A call, which began so many bytes ago.
    Call(usize),
}

impl CallTrigger {
    /// For calls of this form.
    pub fn of(format: &CallFormat) -> Self {
        Self { openings: format.openings(), tail: Vec::new(), is_after_text: false }
    }

    /// Whether a call can no longer begin.
    pub fn is_over(&self) -> bool {
        self.is_after_text && self.openings.iter().all(|(_, is_at_start)| *is_at_start)
    }

    /// Takes more of what is written.
    pub fn push(&mut self, bytes: &[u8]) -> TriggerMatch {
        self.tail.extend_from_slice(bytes);
        match find(&self.openings, &self.tail, self.is_after_text) {
            Found::Call(at) => TriggerMatch::Call(self.tail.len() - at),
            Found::Text(text_bytes) => {
                self.is_after_text |= self.tail[..text_bytes].iter().any(|byte| !byte.is_ascii_whitespace());
                self.tail.drain(..text_bytes);
                if self.tail.is_empty() { TriggerMatch::Text } else { TriggerMatch::Held(self.tail.len()) }
            }
        }
    }
}

/// What some bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// So many of them are text, and the others may be the beginning of a call.
    Text(usize),
    /// A call begins there.
    Call(usize),
}

/// Finds the first opening of a call.
pub(crate) fn find(openings: &[(String, bool)], bytes: &[u8], is_after_text: bool) -> Found {
    let start = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let (mut call, mut text): (Option<usize>, usize) = (None, bytes.len());
    for (opening, is_at_start) in openings {
        if *is_at_start {
            if is_after_text {
                continue;
            }
            match literal::literal(opening, &bytes[start..]) {
                Match::Full(_) => call = Some(call.map_or(start, |at| at.min(start))),
                Match::Partial => text = 0,
                Match::No => {}
            }
        } else {
            let found = literal::find(opening.as_bytes(), bytes);
            call = match (call, found) {
                (Some(known), Some(at)) => Some(known.min(at)),
                (known, at) => known.or(at),
            };
            text = text.min(bytes.len() - literal::held(opening.as_bytes(), bytes));
        }
    }
    match call {
        // What may still become a call that begins earlier is waited for.
        Some(at) if at <= text => Found::Call(at),
        _ => Found::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::CallPart;
    use super::*;

    #[test]
    fn the_beginning_of_a_call_is_found_across_pieces() {
        let mut trigger = CallTrigger::of(&CallFormat::generic());
        assert_eq!(trigger.push(b"a < b <tool"), TriggerMatch::Held(5));
        assert_eq!(trigger.push(b"_box> <tool_"), TriggerMatch::Held(6));
        assert_eq!(trigger.push(b"call>\n{"), TriggerMatch::Call(13));
    }

    #[test]
    fn a_mark_of_other_things_too_begins_a_call_with_its_word_only() {
        let mut trigger = CallTrigger::of(&CallFormat::harmony());
        assert_eq!(trigger.push(b"<|channel|>final<|message|>Hi"), TriggerMatch::Text);
        assert!(!trigger.is_over());
        assert!(matches!(trigger.push(b"<|channel|>commentary to=functions.get"), TriggerMatch::Call(38)));
    }

    #[test]
    fn a_call_without_a_mark_begins_an_answer_only() {
        let begins = vec![CallPart::parts("{\"name\": \"")];
        let format = CallFormat { begins, ..CallFormat::generic() };
        let mut trigger = CallTrigger::of(&format);
        assert_eq!(trigger.push(b" \n{\"na"), TriggerMatch::Held(6));
        assert_eq!(trigger.push(b"me\":\"x"), TriggerMatch::Call(10));
        let mut trigger = CallTrigger::of(&format);
        assert_eq!(trigger.push(b"So: {\"name\": \""), TriggerMatch::Text);
        assert!(trigger.is_over());
    }
}

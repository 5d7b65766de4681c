//! Calls of tools in an output that is text until one begins: from there on, it is held to their form.

use artel_chat::{CallTrigger, TriggerMatch};
use artel_constraint::Constraint;

/// Waits for the beginning of a call.
pub(crate) struct LazyCalls {
    trigger: CallTrigger,
    constraint: Constraint,
    /// The last tokens, as far as they may be the beginning of a call, with their bytes.
    recent: Vec<(u32, Vec<u8>)>,
}

/// What follows from a token.
pub(crate) enum CallBeginning {
    /// A call may still begin.
    Later(LazyCalls),
    /// A call has begun; this holds what follows of it.
    Now(Constraint),
    /// None can begin any more, or one began that is in no form that is allowed.
    Never,
}

impl LazyCalls {
    pub(crate) fn new(trigger: CallTrigger, constraint: Constraint) -> Self {
        Self { trigger, constraint, recent: Vec::new() }
    }

    /// Takes a token that was sampled, and its bytes, those of its text if it is a control token.
    pub(crate) fn accept(mut self, token: u32, bytes: Vec<u8>) -> CallBeginning {
        let found = self.trigger.push(&bytes);
        self.recent.push((token, bytes));
        match found {
            TriggerMatch::Call(count) => self.begin(count),
            _ if self.trigger.is_over() => CallBeginning::Never,
            TriggerMatch::Text => {
                self.recent.clear();
                CallBeginning::Later(self)
            }
            TriggerMatch::Held(count) => {
                let first = self.first_of(count);
                self.recent.drain(..first);
                CallBeginning::Later(self)
            }
        }
    }

    /// The index of the first of the tokens that the last so many bytes came in.
    fn first_of(&self, count: usize) -> usize {
        let (mut left, mut at) = (count, self.recent.len());
        while left > 0 && at > 0 {
            at -= 1;
            left = left.saturating_sub(self.recent[at].1.len());
        }
        at
    }

    fn begin(mut self, count: usize) -> CallBeginning {
        let first = self.first_of(count);
        let bytes: usize = self.recent[first..].iter().map(|(_, bytes)| bytes.len()).sum();
        let (before, mut tokens) = (bytes.saturating_sub(count), self.recent.split_off(first));
        // A token that begins before the call is gone on with by the rest of its bytes.
        let rest = (before > 0 && !tokens.is_empty()).then(|| tokens.remove(0).1.split_off(before));
        let begun = rest.map_or(Ok(()), |rest| self.constraint.accept_bytes(&rest));
        let begun = begun.and_then(|()| tokens.iter().try_for_each(|(token, _)| self.constraint.accept(*token)));
        match begun {
            Ok(()) => CallBeginning::Now(self.constraint),
            Err(error) => {
                tracing::debug!(%error, "a call of a tool began in another form than that of the model's template");
                CallBeginning::Never
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use artel_chat::{CallFormat, calls_grammar};
    use artel_constraint::{Compiler, byte_vocabulary};
    use artel_model::{Tool, ToolSet};

    use super::*;

    fn lazy() -> LazyCalls {
        let parameters = serde_json::json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        let tool = Tool { name: "get".to_owned(), description: String::new(), parameters };
        let set = ToolSet { tools: vec![tool], ..ToolSet::default() };
        let grammar = calls_grammar(&CallFormat::generic(), &set, None).unwrap();
        let constraint = Compiler::new(&byte_vocabulary()).unwrap().compile_calls(&grammar).unwrap();
        LazyCalls::new(CallTrigger::of(&CallFormat::generic()), constraint)
    }

    /// Feeds pieces as tokens of which only the bytes are known.
    fn fed(pieces: &[&str]) -> CallBeginning {
        let mut lazy = lazy();
        for (at, piece) in pieces.iter().enumerate() {
            // A piece of one byte is the token of that byte.
            let token = if piece.len() == 1 { u32::from(piece.as_bytes()[0]) } else { u32::MAX };
            match lazy.accept(token, piece.as_bytes().to_vec()) {
                CallBeginning::Later(later) => lazy = later,
                end => {
                    assert_eq!(at + 1, pieces.len(), "the rest was not fed");
                    return end;
                }
            }
        }
        CallBeginning::Later(lazy)
    }

    #[test]
    fn a_call_is_held_to_its_form_from_its_first_mark_on() {
        let bytes: Vec<String> = "So: <tool_call>".chars().map(String::from).collect();
        let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
        for pieces in [bytes.as_slice(), &["So: <tool_call>\n{"]] {
            let CallBeginning::Now(mut constraint) = fed(pieces) else { panic!("{pieces:?} is a call") };
            let next = if pieces.len() > 1 { b'\n' } else { b'"' };
            let mask = constraint.mask().unwrap().unwrap();
            assert!(mask.is_allowed(next.into()) && !mask.is_allowed(b'x'.into()));
        }
    }

    #[test]
    fn text_holds_nothing_and_another_form_is_let_be() {
        assert!(matches!(fed(&["a <tool", "_box> and so on"]), CallBeginning::Later(_)));
        assert!(matches!(fed(&["<tool_call>[get"]), CallBeginning::Never));
    }
}

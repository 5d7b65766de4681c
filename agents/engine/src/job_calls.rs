//! The calls of tools in one output.

use artel_chat::{CallDelta, CallFormat, CallParser, CallTrigger, calls_grammar, marked_pieces};
use artel_model::ToolSet;
use serde_json::Value;

use crate::backend::{CallConstraint, Token, Tokenizer};

/// What tells calls from the text of an output, and holds them to their form.
pub(crate) struct JobCalls {
    pub(crate) constraint: Option<CallConstraint>,
    parser: CallParser,
    /// What is not sent yet.
    unsent: Vec<CallDelta>,
}

impl JobCalls {
    /// For tools of which some may be called. An output that may be in a schema instead has nothing but calls or that.
    pub(crate) fn new(format: CallFormat, tools: &ToolSet, schema: Option<&Value>) -> Self {
        let is_whole = tools.must_call() || schema.is_some();
        let trigger = (!is_whole).then(|| CallTrigger::of(&format));
        let grammar = calls_grammar(&format, tools, schema);
        let constraint = grammar.map(|grammar| CallConstraint { grammar, trigger });
        let parser = CallParser::new(format, tools.callable().cloned().collect(), tools.single);
        Self { constraint, parser, unsent: Vec::new() }
    }

    /// Takes a token; what of it is text is appended.
    pub(crate) fn push(&mut self, token: Token, tokenizer: &dyn Tokenizer, text: &mut Vec<u8>) {
        let mut marked = Vec::new();
        tokenizer.append_marked(token, &mut marked);
        self.push_marked(&marked, text);
    }

    /// Whether the output has nothing but calls, or what its schema describes.
    pub(crate) fn is_whole(&self) -> bool {
        self.constraint.as_ref().is_some_and(|constraint| constraint.trigger.is_none())
    }

    /// As [`Self::push`], of bytes with the control tokens in them.
    pub(crate) fn push_marked(&mut self, answer: &[u8], text: &mut Vec<u8>) {
        for (piece, is_control) in marked_pieces(answer) {
            let deltas = if is_control { self.parser.push_mark(piece) } else { self.parser.push(piece) };
            self.take(deltas, text);
        }
    }

    /// What is left at the end of the output.
    pub(crate) fn finish(&mut self, text: &mut Vec<u8>) {
        let deltas = self.parser.finish();
        self.take(deltas, text);
    }

    /// Whether any call is complete.
    pub(crate) fn has_calls(&self) -> bool {
        self.parser.calls() > 0
    }

    pub(crate) fn take_unsent(&mut self) -> Vec<CallDelta> {
        std::mem::take(&mut self.unsent)
    }

    fn take(&mut self, deltas: Vec<CallDelta>, text: &mut Vec<u8>) {
        for delta in deltas {
            match delta {
                CallDelta::Text(bytes) => text.extend(bytes),
                other => self.unsent.push(other),
            }
        }
    }
}

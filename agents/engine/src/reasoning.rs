//! The reasoning of one sequence: what of its output it is, how many tokens it took, and when it ends.

use artel_chat::{ParsedOutput, ReasoningParser, ReasoningPhase};

use crate::backend::{ReasoningFormat, Sampled, Token, Tokenizer};
use crate::request::ReasoningParams;

/// Tells the reasoning of a sequence from its answer.
pub(crate) struct SequenceReasoning {
    parser: ReasoningParser,
    /// The tokens that end it and begin the answer.
    end: Vec<Token>,
    /// Of these, the ones behind the mark that ends it.
    answer_start: Vec<Token>,
    /// The tokens after which its end is forced.
    max_tokens: Option<u32>,
    tokens: u32,
    /// Whether a schema waits for its end.
    holds_schema: bool,
    /// Whether tools may be called behind it, without a schema.
    precedes_calls: bool,
    /// Whether the model ended its output before an answer.
    is_broken_off: bool,
    /// Whether the tokens that were due last end it.
    is_end_forced: bool,
    parsed: ParsedOutput,
    /// The bytes of one token.
    piece: Vec<u8>,
}

/// Tokens that are due without being sampled.
pub(crate) struct DueTokens {
    pub(crate) tokens: Vec<Token>,
    /// Whether the schema begins behind them.
    pub(crate) begins_schema: bool,
}

impl SequenceReasoning {
    /// The reasoning of an output of this format; none if there is nothing to tell apart. A schema, which may be that of calls,
    /// begins where the answer does.
    pub(crate) fn new(
        format: ReasoningFormat,
        params: ReasoningParams,
        has_schema: bool,
        has_calls: bool,
    ) -> Option<Box<Self>> {
        let ReasoningFormat { patterns, phase, mut end, mut answer_start, calls_end, calls_start } = format;
        if has_schema && has_calls {
            (end, answer_start) = (calls_end, calls_start);
        }
        let is_plain_answer = match phase {
            ReasoningPhase::Answer => !patterns.marks_answers() || has_schema,
            // A schema begins at once: nothing stands before it that the template has not written.
            ReasoningPhase::After => has_schema && answer_start.is_empty(),
            ReasoningPhase::Before | ReasoningPhase::Inside => false,
        };
        if is_plain_answer {
            return None;
        }
        let parser = ReasoningParser::new(patterns, phase);
        Some(Box::new(Self {
            parser: if has_calls { parser.keeping_control() } else { parser },
            end,
            answer_start,
            max_tokens: params.max_tokens(),
            tokens: 0,
            holds_schema: has_schema,
            precedes_calls: has_calls && !has_schema,
            is_broken_off: false,
            is_end_forced: false,
            parsed: ParsedOutput::default(),
            piece: Vec::new(),
        }))
    }

    /// Tokens from the mark that opens it to the one that closes it.
    pub(crate) fn tokens(&self) -> u32 {
        self.tokens
    }

    pub(crate) fn is_inside(&self) -> bool {
        self.parser.phase() == ReasoningPhase::Inside
    }

    /// Whether tools may be called behind it, without a schema.
    pub(crate) fn precedes_calls(&self) -> bool {
        self.precedes_calls
    }

    /// Whether what constrains the answer waits: a call does not begin within a reasoning.
    pub(crate) fn holds_constraint(&self) -> bool {
        self.holds_schema || self.precedes_calls && self.is_inside()
    }

    /// The schema begins, and the answer with it.
    pub(crate) fn begin_schema(&mut self) {
        self.holds_schema = false;
        self.parser.begin_answer();
    }

    /// Its end was appended, unless it had ended: whatever tokens that took, the answer is next.
    pub(crate) fn settle_end(&mut self) {
        if self.is_inside() {
            self.parser.begin_answer();
        }
        if std::mem::take(&mut self.is_end_forced) {
            self.parser.expect_late_close();
        }
    }

    /// Bytes of it that are not sent yet.
    pub(crate) fn unsent_bytes(&mut self) -> &mut Vec<u8> {
        &mut self.parsed.reasoning
    }

    /// Takes a token of the output, and appends the bytes of the answer that it decides.
    pub(crate) fn push(&mut self, token: Token, tokenizer: &dyn Tokenizer, answer: &mut Vec<u8>) {
        self.piece.clear();
        tokenizer.append_marked(token, &mut self.piece);
        let was_inside = self.is_inside();
        self.parser.push(&self.piece, &mut self.parsed);
        self.tokens += u32::from(was_inside || self.is_inside());
        self.take_answer(answer);
    }

    /// Takes what was held back in case that a mark follows.
    pub(crate) fn finish(&mut self, answer: &mut Vec<u8>) {
        self.parser.finish(&mut self.parsed);
        self.take_answer(answer);
    }

    fn take_answer(&mut self, answer: &mut Vec<u8>) {
        // What a schema waits behind is no part of its JSON.
        if !self.holds_schema {
            answer.append(&mut self.parsed.answer);
        }
        self.parsed.answer.clear();
    }

    /// Whether what was sampled is not appended, because something else comes in its place: the model ends its output within its
    /// reasoning, or begins an answer without the schema.
    pub(crate) fn is_refused(&mut self, sampled: Sampled, tokenizer: &dyn Tokenizer) -> bool {
        let phase = self.parser.phase();
        self.is_broken_off = match sampled {
            Sampled::End => self.is_inside() || self.holds_schema,
            Sampled::Token(token) if self.holds_schema && phase != ReasoningPhase::Inside => {
                self.piece.clear();
                tokenizer.append_marked(token, &mut self.piece);
                self.parser.would_answer(&self.piece)
            }
            Sampled::Token(_) => false,
        };
        self.is_broken_off
    }

    /// The tokens that are due now, once.
    pub(crate) fn take_due(&mut self) -> Option<DueTokens> {
        let is_broken_off = std::mem::take(&mut self.is_broken_off);
        let is_spent = self.max_tokens.is_some_and(|max| self.tokens >= max) && !self.parser.is_in_mark();
        let begins_schema = self.holds_schema;
        match self.parser.phase() {
            ReasoningPhase::Inside if is_spent || is_broken_off => {
                self.is_end_forced = true;
                Some(DueTokens { tokens: self.end.clone(), begins_schema })
            }
            ReasoningPhase::After if begins_schema => {
                Some(DueTokens { tokens: self.answer_start.clone(), begins_schema })
            }
            ReasoningPhase::Before if begins_schema && is_broken_off => {
                Some(DueTokens { tokens: Vec::new(), begins_schema })
            }
            ReasoningPhase::Answer if begins_schema => Some(DueTokens { tokens: Vec::new(), begins_schema }),
            _ => None,
        }
    }
}

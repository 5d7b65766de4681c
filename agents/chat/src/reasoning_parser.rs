//! Tells reasoning from answer in the bytes of an output, as they come.

use std::sync::Arc;

use crate::mark_patterns::{MarkPatterns, control_length, text_of};
use crate::reasoning_marks::ReasoningPhase;

/// What bytes of an output are, without marks and control tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParsedOutput {
    /// More of the reasoning.
    pub reasoning: Vec<u8>,
    /// More of the answer.
    pub answer: Vec<u8>,
}

/// The state of one output. Any split of the same bytes gives the same parts.
///
/// A reasoning stands at the beginning of an output; several may follow one another. What looks like a mark within an answer is a
/// part of that answer, unless the template writes answers between marks.
#[derive(Debug, Clone)]
pub struct ReasoningParser {
    patterns: Arc<MarkPatterns>,
    phase: ReasoningPhase,
    /// Whether the control tokens of an answer are a part of it, and one that is no mark of a reasoning begins it.
    keeps_control: bool,
    /// What may be the beginning of a mark.
    pending: Vec<u8>,
    /// Whether the model may still write the mark that ends its reasoning, which was ended for it.
    awaits_late_close: bool,
}

impl ReasoningParser {
    /// The parser of an output that begins in this phase.
    pub fn new(patterns: Arc<MarkPatterns>, phase: ReasoningPhase) -> Self {
        Self { patterns, phase, keeps_control: false, pending: Vec::new(), awaits_late_close: false }
    }

    /// The same, for answers that a [`CallParser`](crate::CallParser) reads on: their control tokens stay in them, as they were
    /// [appended](crate::append_control).
    #[must_use]
    pub fn keeping_control(self) -> Self {
        Self { keeps_control: true, ..self }
    }

    /// Where the output is.
    pub fn phase(&self) -> ReasoningPhase {
        self.phase
    }

    /// Whether its last bytes may be the beginning of a mark.
    pub fn is_in_mark(&self) -> bool {
        !self.pending.iter().all(u8::is_ascii_whitespace)
    }

    /// Begins the answer, whatever was to come before it.
    pub fn begin_answer(&mut self) {
        self.phase = ReasoningPhase::Answer;
        self.pending.clear();
        self.awaits_late_close = false;
    }

    /// The end of the reasoning was not the model's own: where it writes one in its answer, that is left out.
    pub fn expect_late_close(&mut self) {
        self.awaits_late_close = true;
    }

    /// Whether these bytes would begin an answer without a mark.
    pub fn would_answer(&self, bytes: &[u8]) -> bool {
        let mut parsed = ParsedOutput::default();
        self.clone().push(bytes, &mut parsed);
        !parsed.answer.is_empty()
    }

    /// Takes more bytes, in which control tokens are written by [`append_control`](crate::append_control) and whole.
    pub fn push(&mut self, bytes: &[u8], out: &mut ParsedOutput) {
        // As most bytes of most outputs are.
        if self.phase == ReasoningPhase::Answer && self.patterns.answer_close.is_empty() && !self.awaits_late_close {
            return append_answer(bytes, self.keeps_control, &mut out.answer);
        }
        self.pending.extend_from_slice(bytes);
        while self.step(out) {}
    }

    /// Takes the rest as what it is when nothing follows.
    pub fn finish(&mut self, out: &mut ParsedOutput) {
        let rest = std::mem::take(&mut self.pending);
        match self.phase {
            ReasoningPhase::Inside => out.reasoning.extend(text_of(&rest)),
            // A control token says that this is the beginning of a mark.
            ReasoningPhase::Before if text_of(&rest).count() == rest.len() => out.answer.extend(rest),
            ReasoningPhase::Before | ReasoningPhase::After if !self.keeps_control => {}
            _ => append_answer(&rest, self.keeps_control, &mut out.answer),
        }
    }

    /// Takes what is decided of the pending bytes; false if more must come.
    fn step(&mut self, out: &mut ParsedOutput) -> bool {
        match self.phase {
            ReasoningPhase::Before | ReasoningPhase::After => self.step_outside(),
            ReasoningPhase::Inside => {
                let closes = [&self.patterns.close[..]];
                let closed = take_until(&mut self.pending, closes.into_iter(), |bytes| {
                    out.reasoning.extend(text_of(bytes));
                });
                self.turn_to(ReasoningPhase::After, closed)
            }
            ReasoningPhase::Answer => {
                let late = Some(&self.patterns.close[..]).filter(|_| self.awaits_late_close);
                let closes = self.patterns.answer_close.iter().map(Vec::as_slice).chain(late);
                let keeps_control = self.keeps_control;
                let closed = take_until(&mut self.pending, closes, |bytes| {
                    append_answer(bytes, keeps_control, &mut out.answer);
                });
                self.turn_to(ReasoningPhase::After, closed)
            }
        }
    }

    fn turn_to(&mut self, phase: ReasoningPhase, is_reached: bool) -> bool {
        if is_reached {
            self.phase = phase;
        }
        is_reached
    }

    /// Before the answer there are marks, and spaces between them.
    fn step_outside(&mut self) -> bool {
        let Some((taken, phase)) = self.next_outside() else { return false };
        self.pending.drain(..taken);
        self.phase = phase;
        true
    }

    /// How many pending bytes are decided, and the phase behind them.
    fn next_outside(&self) -> Option<(usize, ReasoningPhase)> {
        let pending = &self.pending[..];
        let spaces = pending.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let rest = &pending[spaces..];
        if rest.is_empty() {
            return None;
        }
        let patterns = &*self.patterns;
        let answers = patterns.answer_open.iter().map(|open| (&open[..], ReasoningPhase::Answer));
        let marks = [(&patterns.open[..], ReasoningPhase::Inside), (&patterns.close[..], ReasoningPhase::After)];
        let mut may_follow = false;
        for (mark, phase) in marks.into_iter().chain(answers).filter(|(mark, _)| !mark.is_empty()) {
            // A mark may begin with a space itself.
            for (from, skipped) in [(pending, 0), (rest, spaces)] {
                if from.starts_with(mark) {
                    return Some((skipped + mark.len(), phase));
                }
                may_follow |= mark.starts_with(from);
            }
        }
        if may_follow {
            return None;
        }
        match control_length(rest)? {
            // Spaces behind a reasoning separate it from the answer.
            0 => Some((if self.phase == ReasoningPhase::After { spaces } else { 0 }, ReasoningPhase::Answer)),
            // Such as the mark of a call.
            _ if self.keeps_control => Some((spaces, ReasoningPhase::Answer)),
            // A control token that is no mark.
            length => Some((spaces + length, self.phase)),
        }
    }
}

fn append_answer(bytes: &[u8], keeps_control: bool, answer: &mut Vec<u8>) {
    match keeps_control {
        true => answer.extend_from_slice(bytes),
        false => answer.extend(text_of(bytes)),
    }
}

/// Takes what stands before the first of these marks, and the mark; without one, what cannot belong to one. Whether there was one.
fn take_until<'m>(
    pending: &mut Vec<u8>,
    marks: impl Iterator<Item = &'m [u8]> + Clone,
    mut take: impl FnMut(&[u8]),
) -> bool {
    let found = marks.clone().filter_map(|mark| Some((find(pending, mark)?, mark.len())));
    if let Some((at, length)) = found.min() {
        take(&pending[..at]);
        pending.drain(..at + length);
        return true;
    }
    let begun = |mark: &[u8]| (1..mark.len().min(pending.len() + 1)).rev().find(|n| pending.ends_with(&mark[..*n]));
    let held = marks.filter_map(begun).max().unwrap_or(0);
    let certain = pending.len() - held;
    take(&pending[..certain]);
    pending.drain(..certain);
    false
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return None;
    }
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mark_patterns::{append_control, append_text};
    use crate::reasoning_marks::ReasoningMarks;

    fn marks(open: &str, close: &str) -> ReasoningMarks {
        ReasoningMarks { open: open.to_owned(), close: close.to_owned(), ..ReasoningMarks::default() }
    }

    fn parser(marks: &ReasoningMarks, phase: ReasoningPhase) -> ReasoningParser {
        ReasoningParser::new(Arc::new(MarkPatterns::new(marks, |text, out| append_text(text.as_bytes(), out))), phase)
    }

    fn parsed(mut parser: ReasoningParser, pieces: &[&[u8]]) -> (String, String) {
        let mut out = ParsedOutput::default();
        pieces.iter().for_each(|piece| parser.push(piece, &mut out));
        parser.finish(&mut out);
        (String::from_utf8(out.reasoning).unwrap(), String::from_utf8(out.answer).unwrap())
    }

    fn both(reasoning: &str, answer: &str) -> (String, String) {
        (reasoning.to_owned(), answer.to_owned())
    }

    #[test]
    fn a_reasoning_is_told_from_its_answer() {
        let think = marks("<think>", "</think>");
        let of = |phase, text: &str| parsed(parser(&think, phase), &[text.as_bytes()]);
        let (before, inside) = (ReasoningPhase::Before, ReasoningPhase::Inside);
        assert_eq!(of(before, "\n<think>Hm.\n</think>\n\nYes."), both("Hm.\n", "Yes."));
        assert_eq!(of(inside, "a < b</think>No."), both("a < b", "No."));
        assert_eq!(of(before, "Write <think> for thoughts."), both("", "Write <think> for thoughts."));
        assert_eq!(of(before, "<"), both("", "<"));
        assert_eq!(of(before, " <b>"), both("", " <b>"));
        assert_eq!(of(inside, "It never ends</thin"), both("It never ends</thin", ""));
        assert_eq!(of(before, "<think>a</think>\n<think>b</think>c"), both("ab", "c"));
        assert_eq!(of(before, "</think>It is."), both("", "It is."));
        assert_eq!(of(ReasoningPhase::Answer, "</think>It is."), both("", "</think>It is."));
    }

    #[test]
    fn a_late_end_of_a_reasoning_that_was_ended_is_left_out() {
        let mut parser = parser(&marks("<think>", "</think>"), ReasoningPhase::Inside);
        let mut out = ParsedOutput::default();
        parser.push(b"Hm</think>", &mut out);
        parser.expect_late_close();
        let whole = parsed(parser.clone(), &[b"and so</think>\n\nYes </think>"]);
        assert_eq!(whole, both("", "and soYes "));
        parser.begin_answer();
        assert_eq!(parsed(parser, &[b"{}</think>"]), both("", "{}</think>"));
    }

    #[test]
    fn control_tokens_are_marks_only_as_such_and_never_text() {
        let think = marks("<think>", "</think>");
        let patterns = Arc::new(MarkPatterns::new(&think, |text, out| append_control(text.as_bytes(), out)));
        let mut bytes = Vec::new();
        append_control(b"<think>", &mut bytes);
        append_text(b"I close it by </think>.", &mut bytes);
        append_control(b"<|other|>", &mut bytes);
        append_control(b"</think>", &mut bytes);
        append_control(b"<|other|>", &mut bytes);
        append_text(b"So", &mut bytes);
        append_control(b"<think>", &mut bytes);
        let parser = ReasoningParser::new(patterns, ReasoningPhase::Before);
        assert_eq!(parsed(parser, &[&bytes]), both("I close it by </think>.", "So"));
    }

    #[test]
    fn an_answer_with_calls_keeps_the_control_tokens_that_are_no_marks_of_the_reasoning() {
        let marks = ReasoningMarks {
            open: "<|channel|>analysis<|message|>".to_owned(),
            close: "<|end|><|start|>assistant".to_owned(),
            answer_open: vec!["<|channel|>final<|message|>".to_owned()],
            ..ReasoningMarks::default()
        };
        let encode = |text: &str, out: &mut Vec<u8>| {
            for part in text.split_inclusive("|>") {
                let (plain, control) = part.split_at(part.find("<|").unwrap_or(part.len()));
                append_text(plain.as_bytes(), out);
                if !control.is_empty() {
                    append_control(control.as_bytes(), out);
                }
            }
        };
        let patterns = Arc::new(MarkPatterns::new(&marks, encode));
        let mut bytes = Vec::new();
        encode("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=f", &mut bytes);
        let mut out = ParsedOutput::default();
        let mut parser = ReasoningParser::new(patterns, ReasoningPhase::Before).keeping_control();
        parser.push(&bytes, &mut out);
        parser.finish(&mut out);
        let mut answer = Vec::new();
        encode("<|channel|>commentary to=f", &mut answer);
        assert_eq!((out.reasoning.as_slice(), out.answer), (&b"Hm."[..], answer));
    }

    #[test]
    fn an_answer_without_a_mark_is_seen_before_it_is_taken() {
        let parser = parser(&marks("<think>", "</think>"), ReasoningPhase::Before);
        assert!(parser.would_answer(b"{") && parser.would_answer(b"\nNo"));
        assert!(!parser.would_answer(b"\n<th") && !parser.would_answer(b"<think>x"));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_parts(
            text in "(<think>|</think>|<th|[a-c< \n]){0,12}",
            cuts in prop::collection::vec(0usize..100, 0..6),
            starts_inside: bool,
        ) {
            let phase = if starts_inside { ReasoningPhase::Inside } else { ReasoningPhase::Before };
            let think = marks("<think>", "</think>");
            let whole = parsed(parser(&think, phase), &[text.as_bytes()]);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| (*cut).min(text.len())).collect();
            cuts.sort_unstable();
            let (mut from, mut pieces) = (0, Vec::new());
            for cut in cuts.into_iter().chain([text.len()]) {
                pieces.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            prop_assert_eq!(parsed(parser(&think, phase), &pieces), whole);
        }
    }
}

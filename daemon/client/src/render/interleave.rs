//! Interleaves the outputs of concurrent steps on one terminal.

use anstyle::Style;
use artel_terminal::{DIM, StyledText, column_width};

/// A step prints this much before another may follow: about a line.
const TURN_COLUMNS: usize = 100;
/// A step with more pending output than this interrupts the current one.
const MAX_PENDING_BYTES: usize = 600;

/// The output of one attempt, and the part of it that is not printed yet.
#[derive(Debug, Clone)]
pub(crate) struct StepText {
    /// The prefix of its lines.
    pub(crate) name: String,
    /// The style of the prefix.
    pub(crate) style: Style,
    pending: String,
    /// The offset behind the last received byte.
    received: u64,
    /// Whether a part of the text is missing.
    has_gap: bool,
}

impl StepText {
    /// A text without output.
    pub(crate) fn new(name: String, style: Style) -> Self {
        Self { name, style, pending: String::new(), received: 0, has_gap: false }
    }

    /// Adds text that starts at this offset of the whole text, in bytes.
    pub(crate) fn push(&mut self, offset: u64, text: &str) {
        // Skip bytes that were received before.
        let duplicate = usize::try_from(self.received.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(new) = text.get(duplicate..).filter(|new| !new.is_empty()) else { return };
        if offset > self.received {
            self.has_gap = true;
            self.pending.push_str("[…]");
        }
        self.received = offset.max(self.received) + new.len() as u64;
        self.pending.push_str(new);
    }

    /// Adds the rest of the whole text; true if the received text had a gap, so that all of it is printed again.
    pub(crate) fn finish(&mut self, whole: &str) -> bool {
        let rest = usize::try_from(self.received).ok().and_then(|received| whole.get(received..));
        match rest {
            Some(rest) if !self.has_gap => {
                self.pending.push_str(rest);
                false
            }
            _ => {
                self.pending = whole.to_owned();
                true
            }
        }
    }

    /// Whether it has printable output.
    pub(crate) fn has_output(&self, wrap: bool) -> bool {
        self.printable_bytes(wrap) > 0
    }

    /// Whether too much output is pending.
    pub(crate) fn is_overdue(&self) -> bool {
        self.pending.len() > MAX_PENDING_BYTES
    }

    /// The number of printable bytes: wrapping between words needs complete words.
    fn printable_bytes(&self, wrap: bool) -> usize {
        if !wrap || self.pending.len() > TURN_COLUMNS {
            return self.pending.len();
        }
        self.pending.rfind(char::is_whitespace).map_or(0, |at| at + 1)
    }

    /// Takes the printable output; all pending output if `last`.
    fn take_printable(&mut self, wrap: bool, last: bool) -> String {
        let end = if last { self.pending.len() } else { self.printable_bytes(wrap) };
        let rest = self.pending.split_off(self.pending.floor_char_boundary(end));
        std::mem::replace(&mut self.pending, rest)
    }
}

/// The position of the cursor, and the step whose output is printed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interleaver {
    /// The width of a line in columns. None: lines end where the text has a line break.
    wrap: Option<usize>,
    /// The step whose output is printed.
    pub(crate) current: Option<String>,
    /// The column of the cursor; 0 at the start of a line.
    column: usize,
    /// Columns that the current step has printed in its turn.
    turn_columns: usize,
    /// Whether the cursor is inside a word.
    in_word: bool,
}

impl Interleaver {
    /// At the start of a line, without a current step.
    pub(crate) fn new(wrap: Option<usize>) -> Self {
        Self { wrap, ..Self::default() }
    }

    /// Whether lines are wrapped between words.
    pub(crate) fn wraps(&self) -> bool {
        self.wrap.is_some()
    }

    /// Starts a new line, unless at the start of one.
    pub(crate) fn start_line(&mut self, out: &mut StyledText) {
        if self.column > 0 {
            out.newline();
            self.column = 0;
        }
    }

    /// Switches to a step, on a new line.
    pub(crate) fn switch_to(&mut self, step: &str, out: &mut StyledText) {
        self.start_line(out);
        self.current = Some(step.to_owned());
        (self.turn_columns, self.in_word) = (0, false);
    }

    /// Whether another step may follow now.
    pub(crate) fn can_switch(&self) -> bool {
        self.current.is_none() || self.column == 0 || (self.turn_columns >= TURN_COLUMNS && !self.in_word)
    }

    /// Prints the printable output of a step; all pending output if `last`.
    pub(crate) fn print(&mut self, step: &mut StepText, last: bool, out: &mut StyledText) {
        let output = step.take_printable(self.wraps(), last);
        for line in output.split_inclusive('\n') {
            let (text, is_complete) = line.strip_suffix('\n').map_or((line, false), |text| (text, true));
            if self.column == 0 {
                self.prefix(step, out);
            }
            for word in text.split_inclusive(' ') {
                self.word(step, word, out);
            }
            if is_complete {
                out.newline();
                (self.column, self.in_word) = (0, false);
            }
        }
    }

    fn word(&mut self, step: &StepText, word: &str, out: &mut StyledText) {
        let width = column_width(word.trim_end());
        let prefix_columns = column_width(&step.name) + 3;
        if self.wrap.is_some_and(|wrap| self.column > prefix_columns && self.column + width > wrap) {
            out.newline();
            self.prefix(step, out);
        }
        out.push(word);
        let width = column_width(word);
        (self.column, self.turn_columns) = (self.column + width, self.turn_columns + width);
        self.in_word = !word.ends_with(char::is_whitespace);
    }

    fn prefix(&mut self, step: &StepText, out: &mut StyledText) {
        out.push_styled(step.style, &step.name).push_styled(DIM, " │ ");
        self.column = column_width(&step.name) + 3;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> StepText {
        StepText::new("lora".to_owned(), Style::new())
    }

    #[test]
    fn duplicate_text_is_printed_once() {
        let mut text = text();
        text.push(0, "Rank 8");
        text.push(0, "Rank 8");
        text.push(4, " 8 is");
        assert!(!text.finish("Rank 8 is enough."));
        assert_eq!(text.take_printable(false, true), "Rank 8 is enough.");
    }

    #[test]
    fn a_gap_is_marked_and_filled_at_the_end() {
        let mut text = text();
        text.push(0, "Rank");
        text.push(6, " is");
        assert_eq!(text.take_printable(false, false), "Rank[…] is");
        assert!(text.finish("Rank 8 is enough."));
        assert_eq!(text.take_printable(false, true), "Rank 8 is enough.");
    }

    #[test]
    fn with_wrapping_incomplete_words_are_held_back() {
        let mut text = text();
        text.push(0, "Rank eig");
        assert_eq!(text.take_printable(true, false), "Rank ");
        assert!(!text.has_output(true) && text.has_output(false));
        assert_eq!(text.take_printable(true, true), "eig");
    }
}

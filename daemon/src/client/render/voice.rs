//! What one attempt says, and how it is laid out.

use anstyle::Style;

use super::page::Page;

/// How much one step says before another may speak, in columns: about a line.
const TURN: usize = 100;
/// How much a step holds back while another speaks, in bytes, before it breaks in.
const PATIENCE: usize = 600;

/// An attempt that speaks, and what it has not been able to say yet.
#[derive(Debug, Clone)]
pub(crate) struct Voice {
    /// How it is called at the beginning of its lines.
    pub(crate) name: String,
    /// The colour of its name.
    pub(crate) style: Style,
    pending: String,
    /// Bytes of its text that have come, from the beginning without a gap.
    heard: u64,
    /// Whether a part of its text is missing.
    gap: bool,
}

impl Voice {
    /// Has said nothing yet.
    pub(crate) fn new(name: String, style: Style) -> Self {
        Self { name, style, pending: String::new(), heard: 0, gap: false }
    }

    /// Takes text that begins at an offset of the attempt's whole text, in bytes.
    pub(crate) fn hear(&mut self, offset: u64, text: &str) {
        // What was sent twice is said once.
        let known = usize::try_from(self.heard.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(new) = text.get(known..).filter(|new| !new.is_empty()) else { return };
        if offset > self.heard {
            self.gap = true;
            self.pending.push_str("[…]");
        }
        self.heard = offset.max(self.heard) + new.len() as u64;
        self.pending.push_str(new);
    }

    /// Takes the whole text at the end; true if what was heard of it had a gap, so that all of it is to be said again.
    pub(crate) fn complete(&mut self, whole: &str) -> bool {
        let rest = usize::try_from(self.heard).ok().and_then(|heard| whole.get(heard..));
        match rest {
            Some(rest) if !self.gap => {
                self.pending.push_str(rest);
                false
            }
            _ => {
                self.pending = whole.to_owned();
                true
            }
        }
    }

    /// Whether it has something to say.
    pub(crate) fn waits(&self, wrap: bool) -> bool {
        self.sayable(wrap) > 0
    }

    /// Whether it has waited for too long.
    pub(crate) fn breaks_in(&self) -> bool {
        self.pending.len() > PATIENCE
    }

    /// How many bytes can be said: a line that is wrapped between words needs whole words.
    fn sayable(&self, wrap: bool) -> usize {
        if !wrap || self.pending.len() > TURN {
            return self.pending.len();
        }
        self.pending.rfind(char::is_whitespace).map_or(0, |at| at + 1)
    }

    /// What can be said now; all of it if this is the last of it.
    fn utter(&mut self, wrap: bool, last: bool) -> String {
        let end = if last { self.pending.len() } else { self.sayable(wrap) };
        let rest = self.pending.split_off(self.pending.floor_char_boundary(end));
        std::mem::replace(&mut self.pending, rest)
    }
}

/// Where the text stands, and whose turn it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Floor {
    /// The width of a line in columns. None: lines end where the text has a line break.
    wrap: Option<usize>,
    /// The step that speaks.
    pub(crate) holder: Option<String>,
    /// Columns of the line so far; 0 at its beginning.
    column: usize,
    /// Columns that the holder has said in its turn.
    spoken: usize,
    /// Whether the holder is inside of a word.
    in_word: bool,
}

impl Floor {
    /// At the beginning of a line, nobody speaks.
    pub(crate) fn new(wrap: Option<usize>) -> Self {
        Self { wrap, ..Self::default() }
    }

    /// Whether lines are wrapped.
    pub(crate) fn wraps(&self) -> bool {
        self.wrap.is_some()
    }

    /// Begins a line, if it is not at the beginning of one.
    pub(crate) fn fresh_line(&mut self, page: &mut Page) {
        if self.column > 0 {
            page.end();
            self.column = 0;
        }
    }

    /// Gives the floor to a step.
    pub(crate) fn give(&mut self, step: &str, page: &mut Page) {
        self.fresh_line(page);
        self.holder = Some(step.to_owned());
        (self.spoken, self.in_word) = (0, false);
    }

    /// Whether somebody else may speak now.
    pub(crate) fn turn_is_over(&self) -> bool {
        self.holder.is_none() || self.column == 0 || (self.spoken >= TURN && !self.in_word)
    }

    /// Lets a voice say what it has.
    pub(crate) fn speak(&mut self, voice: &mut Voice, last: bool, page: &mut Page) {
        let said = voice.utter(self.wraps(), last);
        for line in said.split_inclusive('\n') {
            let (text, ends) = line.strip_suffix('\n').map_or((line, false), |text| (text, true));
            if self.column == 0 {
                self.prefix(voice, page);
            }
            for word in text.split_inclusive(' ') {
                self.word(voice, word, page);
            }
            if ends {
                page.end();
                (self.column, self.in_word) = (0, false);
            }
        }
    }

    fn word(&mut self, voice: &Voice, word: &str, page: &mut Page) {
        let width = columns(word.trim_end());
        let begin = columns(&voice.name) + 3;
        if self.wrap.is_some_and(|wrap| self.column > begin && self.column + width > wrap) {
            page.end();
            self.prefix(voice, page);
        }
        page.put(word);
        let width = columns(word);
        (self.column, self.spoken) = (self.column + width, self.spoken + width);
        self.in_word = !word.ends_with(char::is_whitespace);
    }

    fn prefix(&mut self, voice: &Voice, page: &mut Page) {
        page.paint(voice.style, &voice.name).paint(super::page::DIM, " │ ");
        self.column = columns(&voice.name) + 3;
    }
}

/// The columns that a text takes. Wide characters begin about there; one too many only breaks a line earlier.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(|c| if c < '\u{1100}' || ('\u{2000}'..'\u{2e80}').contains(&c) { 1 } else { 2 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voice() -> Voice {
        Voice::new("lora".to_owned(), Style::new())
    }

    #[test]
    fn what_comes_twice_is_said_once() {
        let mut voice = voice();
        voice.hear(0, "Rank 8");
        voice.hear(0, "Rank 8");
        voice.hear(4, " 8 is");
        assert!(!voice.complete("Rank 8 is enough."));
        assert_eq!(voice.utter(false, true), "Rank 8 is enough.");
    }

    #[test]
    fn a_gap_is_marked_and_filled_at_the_end() {
        let mut voice = voice();
        voice.hear(0, "Rank");
        voice.hear(6, " is");
        assert_eq!(voice.utter(false, false), "Rank[…] is");
        assert!(voice.complete("Rank 8 is enough."));
        assert_eq!(voice.utter(false, true), "Rank 8 is enough.");
    }

    #[test]
    fn half_words_wait_where_lines_are_wrapped() {
        let mut voice = voice();
        voice.hear(0, "Rank eig");
        assert_eq!(voice.utter(true, false), "Rank ");
        assert!(!voice.waits(true) && voice.waits(false));
        assert_eq!(voice.utter(true, true), "eig");
    }
}

//! Text with styles that is safe to print on a terminal.

use std::fmt::{self, Display, Write};

use anstyle::{AnsiColor, Style};

/// The most important part of a line.
pub const BOLD: Style = Style::new().bold();
/// Secondary information.
pub const DIM: Style = Style::new().dimmed();
/// Success.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Attention.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// Failure.
pub const BAD: Style = AnsiColor::Red.on_default().bold();

/// A buffer of styled text. Text from models and other clients cannot control the terminal: control characters other than
/// newline and tab are removed, and only the buffer itself writes escape sequences.
#[derive(Debug, Clone)]
pub struct StyledText {
    text: String,
    color: bool,
}

impl StyledText {
    /// An empty buffer.
    pub fn new(color: bool) -> Self {
        Self { text: String::new(), color }
    }

    /// Adds text.
    pub fn push(&mut self, text: impl Display) -> &mut Self {
        write!(self, "{text}").expect("writing to the buffer cannot fail");
        self
    }

    /// Adds text in a style.
    pub fn push_styled(&mut self, style: Style, text: impl Display) -> &mut Self {
        if self.color {
            self.text.push_str(&style.render().to_string());
            self.push(text);
            self.text.push_str(&style.render_reset().to_string());
            return self;
        }
        self.push(text)
    }

    /// Adds the line of an error.
    pub fn push_error(&mut self, message: impl Display) -> &mut Self {
        self.push_styled(BAD, "error").push(": ").push_styled(BOLD, message).newline()
    }

    /// Adds a line break.
    pub fn newline(&mut self) -> &mut Self {
        self.text.push('\n');
        self
    }

    /// Takes the text and leaves the buffer empty.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }
}

impl Write for StyledText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text.extend(text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')));
        Ok(())
    }
}

/// The text on one line, so that it cannot break the layout.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first characters of a text, on one line.
pub fn brief(text: &str, max_chars: usize) -> String {
    let line = one_line(text);
    match line.char_indices().nth(max_chars) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// The display width of a text. The ranges of wide characters are approximate: an overestimate only wraps a line earlier.
pub fn column_width(text: &str) -> usize {
    text.chars().map(|c| if c < '\u{1100}' || ('\u{2000}'..'\u{2e80}').contains(&c) { 1 } else { 2 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_text_cannot_control_the_terminal() {
        let mut out = StyledText::new(true);
        out.push("a\x1b[31mred\x07\x1b]0;title\x1b\\\r\u{9b}2J\tb\n").push_styled(GOOD, "ok\x1b[0m");
        assert_eq!(out.take(), "a[31mred]0;title\\2J\tb\n\x1b[32mok[0m\x1b[0m");
    }

    #[test]
    fn text_without_colour_has_no_escape_sequences() {
        let mut out = StyledText::new(false);
        out.push_styled(BAD, "bad").push(" news").newline();
        assert_eq!(out.take(), "bad news\n");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(brief("äöü\n  äöü", 5), "äöü ä…");
        assert_eq!(brief("short", 5), "short");
    }
}

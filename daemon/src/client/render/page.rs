//! Text for people, safe for a terminal.

use std::fmt::{self, Display, Write};

use anstyle::{AnsiColor, Style};

/// What matters most in a line.
pub(crate) const BOLD: Style = Style::new().bold();
/// What is there for those who look for it.
pub(crate) const DIM: Style = Style::new().dimmed();
/// What went well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// What needs attention.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
/// What went wrong.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// Text that is being written. Whatever is put in, from a model or another client, cannot steer the terminal: control
/// characters other than newline and tab are left out, and only the page itself writes colours.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    text: String,
    color: bool,
}

impl Page {
    /// An empty page.
    pub(crate) fn new(color: bool) -> Self {
        Self { text: String::new(), color }
    }

    /// Adds text.
    pub(crate) fn put(&mut self, what: impl Display) -> &mut Self {
        write!(self, "{what}").expect("a page takes whatever is written");
        self
    }

    /// Adds text in a style.
    pub(crate) fn paint(&mut self, style: Style, what: impl Display) -> &mut Self {
        if self.color {
            self.text.push_str(&style.render().to_string());
            self.put(what);
            self.text.push_str(&style.render_reset().to_string());
            return self;
        }
        self.put(what)
    }

    /// Ends the line.
    pub(crate) fn end(&mut self) -> &mut Self {
        self.text.push('\n');
        self
    }

    /// What has been written; the page is empty afterwards.
    pub(crate) fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }
}

impl Write for Page {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text.extend(text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')));
        Ok(())
    }
}

/// On one line: a name or message that must not break the layout.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The beginning of a text on one line, in characters.
pub(crate) fn brief(text: &str, max: usize) -> String {
    let line = one_line(text);
    match line.char_indices().nth(max) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_text_cannot_steer_the_terminal() {
        let mut page = Page::new(true);
        page.put("a\x1b[31mred\x07\x1b]0;title\x1b\\\r\u{9b}2J\tb\n").paint(GOOD, "ok\x1b[0m");
        assert_eq!(page.take(), "a[31mred]0;title\\2J\tb\n\x1b[32mok[0m\x1b[0m");
    }

    #[test]
    fn a_page_without_colour_has_no_escapes() {
        let mut page = Page::new(false);
        page.paint(BAD, "bad").put(" news").end();
        assert_eq!(page.take(), "bad news\n");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(brief("äöü\n  äöü", 5), "äöü ä…");
        assert_eq!(brief("short", 5), "short");
    }
}

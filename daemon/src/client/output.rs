//! Standard output and the live line.

use std::io::{self, IsTerminal, Stdout, Write};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::render::page::Page;
use crate::args::{Color, Global};

/// The width of a line while the live line is shown, in columns: what reads well, and fits any terminal.
const WIDTH: usize = 80;
/// How often the live line is drawn again.
const TICK: Duration = Duration::from_millis(100);

/// Where results go: to a program as JSON lines, or to people.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: Stdout,
    json: bool,
    color: bool,
    live: Option<Live>,
}

/// A line on standard error that says what goes on, and the line of standard output that has not ended yet: on one
/// terminal they share the screen, so the unfinished line is drawn with the live one until it ends.
#[derive(Debug)]
struct Live {
    bar: ProgressBar,
    shares_screen: bool,
    tail: String,
    status: String,
}

impl Output {
    /// As the flags say.
    pub(crate) fn new(global: &Global) -> Self {
        Self { stdout: io::stdout(), json: global.json, color: colored(global.color, &io::stdout()), live: None }
    }

    /// Whether a program reads it.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether it is coloured.
    pub(crate) fn color(&self) -> bool {
        self.color
    }

    /// The width to which lines that grow are to be wrapped, if they are drawn with the live line.
    pub(crate) fn wrap(&self) -> Option<usize> {
        self.live.as_ref().filter(|live| live.shares_screen).map(|_| WIDTH)
    }

    /// Shows the live line from now on, if a person watches.
    pub(crate) fn go_live(&mut self) {
        if self.json || !io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::new_spinner();
        bar.set_style(ProgressStyle::with_template("{msg}").expect("the template is sound"));
        bar.enable_steady_tick(TICK);
        let shares_screen = self.stdout.is_terminal();
        self.live = Some(Live { bar, shares_screen, tail: String::new(), status: String::new() });
    }

    /// A message: one JSON object on its line, or what the renderer makes of it.
    pub(crate) fn show(&mut self, json: &Value, render: impl FnOnce(&mut Page)) -> io::Result<()> {
        if self.json {
            return self.object(json);
        }
        self.render(render)
    }

    /// What a renderer makes, for people.
    pub(crate) fn render(&mut self, render: impl FnOnce(&mut Page)) -> io::Result<()> {
        let mut page = Page::new(self.color);
        render(&mut page);
        self.print(&page.take())
    }

    /// One JSON object on its line.
    pub(crate) fn object(&mut self, json: &Value) -> io::Result<()> {
        write(&mut self.stdout, &format!("{json}\n"))
    }

    /// Text that a renderer made; it need not end with a whole line.
    pub(crate) fn print(&mut self, text: &str) -> io::Result<()> {
        match &mut self.live {
            _ if text.is_empty() => Ok(()),
            Some(live) if live.shares_screen => live.print(text, &mut self.stdout),
            _ => write(&mut self.stdout, text),
        }
    }

    /// What the live line says.
    pub(crate) fn status(&mut self, line: String) {
        if let Some(live) = &mut self.live {
            live.status = line;
            live.draw();
        }
    }

    /// Takes the live line away; what it shared the screen with stays.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        let Some(live) = self.live.take() else { return Ok(()) };
        live.bar.finish_and_clear();
        if live.tail.is_empty() { Ok(()) } else { write(&mut self.stdout, &format!("{}\n", live.tail)) }
    }
}

impl Live {
    fn print(&mut self, text: &str, stdout: &mut Stdout) -> io::Result<()> {
        self.tail += text;
        let lines = self.tail.rfind('\n').map_or(0, |at| at + 1);
        let rest = self.tail.split_off(lines);
        let done = std::mem::replace(&mut self.tail, rest);
        let written = if done.is_empty() { Ok(()) } else { self.bar.suspend(|| write(stdout, &done)) };
        self.draw();
        written
    }

    fn draw(&self) {
        let gap = if self.tail.is_empty() || self.status.is_empty() { "" } else { "\n" };
        self.bar.set_message(format!("{}{gap}{}", self.tail, self.status));
    }
}

fn write(stdout: &mut Stdout, text: &str) -> io::Result<()> {
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Whether a stream gets colours.
fn colored(color: Color, stream: &impl anstream::stream::RawStream) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => AutoStream::choice(stream) != ColorChoice::Never,
    }
}

/// Text on standard error. Nobody can be told if that fails.
pub(crate) fn complain(color: Color, render: impl FnOnce(&mut Page)) {
    let mut page = Page::new(colored(color, &io::stderr()));
    render(&mut page);
    let _ = io::stderr().write_all(page.take().as_bytes());
}

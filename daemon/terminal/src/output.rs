//! Standard output, and the status line of a terminal.

use std::fmt::Display;
use std::io::{self, IsTerminal, Stdout, Write};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use artel_args::{ColorMode, GlobalArgs};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::outcome::CommandOutcome;
use crate::styled_text::StyledText;

/// The width of a line while the status line is shown: readable, and fits any terminal.
const WRAP_COLUMNS: usize = 80;
/// How often the status line is redrawn.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// The output of a command: JSON lines, or text.
#[derive(Debug)]
pub struct CommandOutput {
    stdout: Stdout,
    json: bool,
    color: bool,
    status_line: Option<StatusLine>,
}

/// A line on standard error with the current progress, and the unfinished last line of standard output: if both are on one
/// terminal, the unfinished line is drawn together with the status line until it ends.
#[derive(Debug)]
struct StatusLine {
    bar: ProgressBar,
    shares_screen: bool,
    unfinished: String,
    status: String,
}

impl CommandOutput {
    /// An output with these flags.
    pub fn new(global: &GlobalArgs) -> Self {
        Self {
            stdout: io::stdout(),
            json: global.json,
            color: use_color(global.color, &io::stdout()),
            status_line: None,
        }
    }

    /// Whether the output is JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether the output is coloured.
    pub fn color(&self) -> bool {
        self.color
    }

    /// The width at which growing lines must be wrapped, if they are drawn together with the status line.
    pub fn wrap(&self) -> Option<usize> {
        self.status_line.as_ref().filter(|line| line.shares_screen).map(|_| WRAP_COLUMNS)
    }

    /// Shows the status line from now on, if standard error is a terminal and the output is not JSON.
    pub fn start_status_line(&mut self) {
        if self.json || !io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::new_spinner();
        bar.set_style(ProgressStyle::with_template("{msg}").expect("the template is valid"));
        bar.enable_steady_tick(REDRAW_INTERVAL);
        let shares_screen = self.stdout.is_terminal();
        self.status_line = Some(StatusLine { bar, shares_screen, unfinished: String::new(), status: String::new() });
    }

    /// Prints a message: one JSON object on a line, or the text of the renderer.
    pub fn show(&mut self, json: &Value, render: impl FnOnce(&mut StyledText)) -> io::Result<()> {
        if self.json {
            return self.object(json);
        }
        self.render(render)
    }

    /// Prints the text of a renderer.
    pub fn render(&mut self, render: impl FnOnce(&mut StyledText)) -> io::Result<()> {
        let mut out = StyledText::new(self.color);
        render(&mut out);
        self.print(&out.take())
    }

    /// Prints one JSON object on a line.
    pub fn object(&mut self, json: &Value) -> io::Result<()> {
        write(&mut self.stdout, &format!("{json}\n"))
    }

    /// Prints text; it need not end with a line break.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        match &mut self.status_line {
            _ if text.is_empty() => Ok(()),
            Some(line) if line.shares_screen => line.print(text, &mut self.stdout),
            _ => write(&mut self.stdout, text),
        }
    }

    /// Replaces the text of the status line.
    pub fn set_status(&mut self, status: String) {
        if let Some(line) = &mut self.status_line {
            line.status = status;
            line.draw();
        }
    }

    /// Removes the status line; the unfinished line of standard output stays.
    pub fn finish_status_line(&mut self) -> io::Result<()> {
        let Some(line) = self.status_line.take() else { return Ok(()) };
        line.bar.finish_and_clear();
        if line.unfinished.is_empty() { Ok(()) } else { write(&mut self.stdout, &format!("{}\n", line.unfinished)) }
    }
}

impl StatusLine {
    fn print(&mut self, text: &str, stdout: &mut Stdout) -> io::Result<()> {
        self.unfinished += text;
        let end = self.unfinished.rfind('\n').map_or(0, |at| at + 1);
        let rest = self.unfinished.split_off(end);
        let lines = std::mem::replace(&mut self.unfinished, rest);
        let written = if lines.is_empty() { Ok(()) } else { self.bar.suspend(|| write(stdout, &lines)) };
        self.draw();
        written
    }

    fn draw(&self) {
        let separator = if self.unfinished.is_empty() || self.status.is_empty() { "" } else { "\n" };
        self.bar.set_message(format!("{}{separator}{}", self.unfinished, self.status));
    }
}

fn write(stdout: &mut Stdout, text: &str) -> io::Result<()> {
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Whether to colour the output on a stream.
fn use_color(color: ColorMode, stream: &impl anstream::stream::RawStream) -> bool {
    match color {
        ColorMode::Always => true,
        ColorMode::Never => false,
        ColorMode::Auto => AutoStream::choice(stream) != ColorChoice::Never,
    }
}

/// Prints text to standard error; there is no way to report that this fails.
pub fn print_to_stderr(color: ColorMode, render: impl FnOnce(&mut StyledText)) {
    let mut out = StyledText::new(use_color(color, &io::stderr()));
    render(&mut out);
    let _ = io::stderr().write_all(out.take().as_bytes());
}

/// Prints the line of an error to standard error.
pub fn print_error(color: ColorMode, error: impl Display) {
    print_to_stderr(color, |out| {
        out.push_error(error);
    });
}

/// The end of a command whose output could not be written; prints the error.
pub fn output_failed(error: &io::Error, color: ColorMode) -> CommandOutcome {
    // The reader, such as `head`, has closed the pipe on purpose.
    if error.kind() == io::ErrorKind::BrokenPipe {
        return CommandOutcome::Done;
    }
    print_error(color, format_args!("failed to write the output: {error}"));
    CommandOutcome::Failed
}

//! A person at a terminal.

use std::num::NonZeroU16;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::cli::Cli;

/// No test waits longer for a program to show something.
const TERMINAL_TIMEOUT: Duration = Duration::from_secs(60);
const SCREEN_COLUMNS: NonZeroU16 = NonZeroU16::new(120).unwrap();
/// More than any session here shows, so that nothing leaves the screen.
const SCREEN_LINES: NonZeroU16 = NonZeroU16::new(200).unwrap();

/// A program that runs in a pseudo terminal, made by `script`.
pub struct TerminalSession {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    /// All that it has written.
    shown: Vec<u8>,
    /// How much of it came before the last answer.
    answered_bytes: usize,
}

impl TerminalSession {
    /// Runs the line of a shell; the call of `script` is given to `prepare`, which sets its environment.
    pub fn start(line: &str, prepare: impl FnOnce(Cli) -> Cli) -> Self {
        let line = format!("stty cols {SCREEN_COLUMNS} rows {SCREEN_LINES}; {line}");
        let script = Cli::program(Path::new("script"), ["--quiet", "--return", "--command"]).arg(line).arg("/dev/null");
        let mut command = prepare(script).into_command();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output, shown: Vec::new(), answered_bytes: 0 }
    }

    /// Waits until it has shown a text since the last answer.
    pub async fn until(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.shown[self.answered_bytes..]).contains(text) {
            assert!(self.read().await, "it ended without `{text}`: {}", self.screen());
        }
    }

    /// Waits until this holds for the last line on the screen.
    pub async fn until_last_line(&mut self, holds: impl Fn(&str) -> bool) {
        while !self.screen().lines().last().is_some_and(&holds) {
            assert!(self.read().await, "it ended without such a line: {}", self.screen());
        }
    }

    /// Waits for a question and answers it with a line.
    pub async fn answer(&mut self, question: &str, answer: &str) {
        self.until(question).await;
        self.answered_bytes = self.shown.len();
        self.input.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
    }

    /// Waits for its end; its exit code.
    pub async fn end(&mut self) -> Option<i32> {
        while self.read().await {}
        self.child.wait().await.unwrap().code()
    }

    /// What stands on the screen now.
    pub fn screen(&self) -> String {
        let mut terminal = vt100::Parser::new(SCREEN_LINES, SCREEN_COLUMNS, 0);
        terminal.process(&self.shown);
        terminal.screen().contents()
    }

    /// Reads what it writes next; false at its end.
    async fn read(&mut self) -> bool {
        let read = tokio::time::timeout(TERMINAL_TIMEOUT, self.output.read_buf(&mut self.shown)).await;
        read.unwrap_or_else(|_| panic!("it shows nothing more: {}", String::from_utf8_lossy(&self.shown))).unwrap() > 0
    }
}

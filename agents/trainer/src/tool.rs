//! Runs a program to its end and keeps the last lines of its standard error.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::output_tail::OutputTail;
use crate::process_group::ProcessGroup;

/// The time for the last output of an exited process to arrive.
const STDERR_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of an answer: a version and a path.
const MAX_ANSWER_BYTES: u64 = 8192;

/// How a program ended.
#[derive(Debug)]
pub(crate) struct ToolEnd {
    pub(crate) status: ExitStatus,
    /// The last lines of its standard error.
    pub(crate) tail: Vec<String>,
}

/// Runs a program; `on_line` takes each line of its standard error. Dropping the future kills it with all that it started.
pub(crate) async fn run(mut command: Command, stdin: Stdio, on_line: impl FnMut(&str)) -> io::Result<ToolEnd> {
    command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped());
    let (mut child, group) = ProcessGroup::spawn(&mut command)?;
    // Its descriptors, of which standard input is one, are the child's alone now.
    drop(command);
    let tail = OutputTail::default();
    let mut reading = child.stderr.take().map(|stderr| Box::pin(tail.clone().read(stderr, on_line)));
    let status = match &mut reading {
        None => child.wait().await?,
        Some(lines) => tokio::select! {
            status = child.wait() => status?,
            () = lines => {
                reading = None;
                child.wait().await?
            }
        },
    };
    // What it left running would keep the pipe open, and go on writing.
    drop(group);
    if let Some(reading) = reading {
        let _ = tokio::time::timeout(STDERR_TIMEOUT, reading).await;
    }
    Ok(ToolEnd { status, tail: tail.lines() })
}

/// Runs a program and returns what it printed; none if it failed.
pub(crate) async fn ask(mut command: Command, timeout: Duration) -> io::Result<Option<String>> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let (mut child, _group) = ProcessGroup::spawn(&mut command)?;
    let answer = async {
        let mut text = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_ANSWER_BYTES).read_to_end(&mut text).await?;
        }
        let has_succeeded = child.wait().await?.success();
        Ok(has_succeeded.then(|| String::from_utf8_lossy(&text).into_owned()))
    };
    let timed_out = |_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {timeout:?}")));
    tokio::time::timeout(timeout, answer).await.unwrap_or_else(timed_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn the_end_of_a_program_has_its_status_and_last_lines() {
        let mut lines = Vec::new();
        let end = run(shell("echo out; echo one >&2; echo two >&2; exit 7"), Stdio::null(), |line| {
            lines.push(line.to_owned());
        });
        let end = end.await.unwrap();
        assert_eq!(
            (end.status.code(), &end.tail, &lines),
            (Some(7), &vec!["one".to_owned(), "two".to_owned()], &end.tail)
        );
    }

    #[tokio::test]
    async fn what_a_program_left_running_does_not_hold_it_up() {
        let end = run(shell("sleep 600 & echo started >&2"), Stdio::null(), |_| {}).await.unwrap();
        assert_eq!(end.tail, ["started"]);
    }

    #[tokio::test]
    async fn a_program_answers_fails_or_takes_too_long() {
        let timeout = Duration::from_secs(30);
        assert_eq!(ask(shell("echo 3.11"), timeout).await.unwrap().as_deref(), Some("3.11\n"));
        assert_eq!(ask(shell("echo no; exit 1"), timeout).await.unwrap(), None);
        let slow = ask(shell("sleep 600"), Duration::from_millis(50)).await;
        assert_eq!(slow.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(ask(Command::new("/no/such/program"), timeout).await.is_err());
    }
}

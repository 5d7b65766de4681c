//! The daemon's side: starts the process, reads what it reports, and ends it.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_util::task::AbortOnDropHandle;

use super::{Line, Measured, MeasurementFailure, MeasurementRequest};
use crate::exit_reason;
use crate::stderr_log::StderrLog;
use crate::supervision::STDERR_TIMEOUT;

/// Bytes of a line of standard output: a failure may quote a path and a reason of llama.cpp's.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// The program to start, which calls [`serve_on_stdin`](super::serve_on_stdin).
#[derive(Debug, Clone)]
pub struct Program {
    /// The path of the executable.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its whole environment: it inherits nothing, since a variable of this process may be secret.
    pub env: Vec<(OsString, OsString)>,
    /// What the log calls it.
    pub name: String,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process cannot be started.
    #[error("failed to start the process that measures the loss: {0}; try again when processes or memory are free")]
    Start(io::Error),
    /// A path in the request cannot be written as JSON.
    #[error("failed to write the request for a measurement: {0}; rename the file whose name is no UTF-8")]
    Request(serde_json::Error),
    /// The process says why it cannot measure.
    #[error(transparent)]
    Failed(#[from] MeasurementFailure),
    /// The process ended without a result.
    #[error("failed to measure the loss: {0}")]
    Ended(String),
}

impl Error {
    /// Whether the same measurement may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Start(_) | Self::Ended(_) => true,
            Self::Failed(failure) => failure.is_transient,
            Self::Request(_) => false,
        }
    }
}

/// Measures a loss in a process of its own. Dropping the future kills the process; what it has written of a copy is removed then.
///
/// # Errors
/// If the process cannot be started, fails or ends.
pub async fn measure(program: &Program, request: &MeasurementRequest) -> Result<Measured, Error> {
    let request_line = serde_json::to_string(request).map_err(Error::Request)? + "\n";
    let (mut process, stdin, stdout) = MeasuringProcess::start(program, request).map_err(Error::Start)?;
    process.result(stdin, stdout, &request_line).await
}

/// A running process. Dropping it kills the process and removes what it may leave.
struct MeasuringProcess {
    child: Child,
    log: StderrLog,
    stderr: Option<AbortOnDropHandle<()>>,
    partial: Option<PathBuf>,
}

impl MeasuringProcess {
    fn start(program: &Program, request: &MeasurementRequest) -> io::Result<(Self, ChildStdin, ChildStdout)> {
        let mut command = Command::new(&program.path);
        // The name in process lists.
        command.arg0("artel");
        command.args(&program.args).env_clear().envs(program.env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Signals of a terminal reach only the daemon, which ends its processes itself.
        let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
        let stdin = child.stdin.take().expect("its standard input is a pipe");
        let stdout = child.stdout.take().expect("its standard output is a pipe");
        let log = StderrLog::default();
        let read = |stderr| AbortOnDropHandle::new(tokio::spawn(log.clone().read(program.name.clone(), stderr)));
        let stderr = child.stderr.take().map(read);
        let partial = request.f16.as_deref().map(artel_gguf::partial_path);
        Ok((Self { child, log, stderr, partial }, stdin, stdout))
    }

    async fn result(&mut self, mut stdin: ChildStdin, stdout: ChildStdout, request: &str) -> Result<Measured, Error> {
        let kills = exit_reason::oom_kill_count();
        // Fails only if the process has ended, and then its exit is the reason.
        let _ = stdin.write_all(request.as_bytes()).await;
        let (mut stdout, mut line) = (BufReader::new(stdout), Vec::new());
        loop {
            line.clear();
            match (&mut stdout).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return Err(Error::Ended(self.end_reason(kills).await)),
                Ok(_) => {}
            }
            match serde_json::from_slice(&line) {
                Ok(Line::Measured(measured)) => return Ok(measured),
                Ok(Line::Failed(failure)) => return Err(failure.into()),
                // A library may print something.
                Err(_) => tracing::debug!(line = %String::from_utf8_lossy(&line).trim_end(), "a measurement printed"),
            }
        }
    }

    /// How it ended. `kills`: those for lack of memory before it started.
    async fn end_reason(&mut self, kills: u64) -> String {
        // It may have closed its output alone.
        let _ = self.child.start_kill();
        let status = self.child.wait().await;
        if let Some(stderr) = self.stderr.take() {
            let _ = tokio::time::timeout(STDERR_TIMEOUT, stderr).await;
        }
        match status {
            Ok(status) => exit_reason::describe(status, &self.log.tail(), exit_reason::oom_kill_count() > kills),
            Err(error) => format!("failed to wait for its process: {error}"),
        }
    }
}

impl Drop for MeasuringProcess {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.child.start_kill();
        if let Some(partial) = &self.partial {
            // A copy that is complete has another name.
            let _ = std::fs::remove_file(partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use tokio::sync::oneshot;

    use super::*;

    /// The time for something that must happen, on a machine with much else to do.
    const DEADLINE: Duration = Duration::from_secs(120);

    /// A script in place of the program that measures.
    fn script(text: &str) -> Program {
        Program {
            path: "/bin/sh".into(),
            args: ["-c", text].map(Into::into).to_vec(),
            env: Vec::new(),
            name: "script".to_owned(),
        }
    }

    fn request(f16: Option<PathBuf>) -> MeasurementRequest {
        MeasurementRequest {
            model: "m.gguf".into(),
            adapter: Some("a.gguf".into()),
            samples: "held_out.jsonl".into(),
            f16,
            threads: 1,
        }
    }

    async fn measured(text: &str) -> Result<Measured, Error> {
        measure(&script(text), &request(None)).await
    }

    #[tokio::test]
    async fn what_a_library_prints_before_the_result_is_ignored() {
        let text = r#"read request; echo warming up; echo '{"measured":{"nats":3.0,"tokens":2}}'; exec sleep 60"#;
        let measured = measured(text).await.unwrap();
        assert_eq!((measured.mean(), measured.tokens), (1.5, 2));
    }

    #[tokio::test]
    async fn what_the_process_reads_is_the_request() {
        let text = r#"read -r request; echo "{\"failed\":{\"message\":\"$(printf %s "$request" | tr -d '\"')\",\"is_transient\":true}}""#;
        let Err(Error::Failed(failure)) = measured(text).await else { panic!() };
        assert!(failure.is_transient && failure.message.starts_with("{model:m.gguf,adapter:a.gguf,"), "{failure}");
    }

    #[tokio::test]
    async fn an_end_without_a_result_has_its_reason() {
        let error = measured("read request; echo 'no such device' >&2; exit 3").await.unwrap_err();
        assert!(error.is_transient() && error.to_string() == "failed to measure the loss: no such device", "{error}");
        let error = measured("read request; kill -ABRT $$").await.unwrap_err();
        assert!(error.to_string().contains("llama.cpp aborted (SIGABRT)"), "{error}");
        let missing = Program { path: "/nowhere/artel".into(), ..script("") };
        assert!(matches!(measure(&missing, &request(None)).await, Err(Error::Start(_))));
    }

    /// Makes a pipe, and tells when no process has it open any more for writing.
    fn pipe(path: &Path) -> oneshot::Receiver<Vec<u8>> {
        mkfifo(path, Mode::S_IRWXU).unwrap();
        let (path, (sender, closed)) = (path.to_owned(), oneshot::channel());
        // A thread of its own, which a runtime does not wait for.
        std::thread::spawn(move || sender.send(std::fs::read(path).unwrap()));
        closed
    }

    #[tokio::test]
    async fn a_measurement_that_is_dropped_leaves_no_process_and_no_part_of_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let [to, begun, alive] = ["m.f16.gguf", "begun", "alive"].map(|name| dir.path().join(name));
        let part = artel_gguf::partial_path(&to);
        // It ignores the end of its standard input.
        let text = format!(
            "read request; echo part > '{0}'; exec 3> '{1}'; cat '{0}' > '{2}'; exec sleep 600",
            part.display(),
            alive.display(),
            begun.display()
        );
        let (begun, gone) = (pipe(&begun), pipe(&alive));
        let (program, request) = (script(&text), request(Some(to)));
        // What is not awaited any more is dropped.
        let begun = tokio::select! {
            result = measure(&program, &request) => panic!("{result:?}"),
            begun = tokio::time::timeout(DEADLINE, begun) => begun.expect("it takes too long").unwrap(),
        };
        assert_eq!(begun, b"part\n");
        assert!(!part.exists());
        tokio::time::timeout(DEADLINE, gone).await.expect("it takes too long").unwrap();
    }
}

//! The daemon's side: starts the process, reads what it reports, and ends it.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Failure, Line, Measured, Progress, Request};
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
    Failed(#[from] Failure),
    /// The process ended without a result.
    #[error("failed to measure the loss: {0}")]
    Ended(String),
    /// The measurement was cancelled.
    #[error("the measurement was cancelled")]
    Cancelled,
}

impl Error {
    /// Whether the same measurement may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Start(_) | Self::Ended(_) => true,
            Self::Failed(failure) => failure.is_transient,
            Self::Request(_) | Self::Cancelled => false,
        }
    }
}

/// Measures a loss in a process of its own, and tells each progress. Once `cancelled` is, ends the process and returns when it is
/// gone; dropping the future ends the process too. What it has written of a copy is removed then.
///
/// # Errors
/// If the process cannot be started, fails or ends, or the measurement is cancelled.
pub async fn measure(
    program: &Program,
    request: &Request,
    cancelled: &CancellationToken,
    on_progress: impl Fn(Progress),
) -> Result<Measured, Error> {
    let request_line = serde_json::to_string(request).map_err(Error::Request)? + "\n";
    let (mut process, stdin, stdout) = MeasuringProcess::start(program, request).map_err(Error::Start)?;
    tokio::select! {
        biased;
        () = cancelled.cancelled() => {
            // Fails only if the process has ended.
            let _ = process.child.kill().await;
            Err(Error::Cancelled)
        }
        result = process.result(stdin, stdout, &request_line, on_progress) => result,
    }
}

/// A running process. Dropping it kills the process and removes what it may leave.
struct MeasuringProcess {
    child: Child,
    log: StderrLog,
    stderr: Option<AbortOnDropHandle<()>>,
    partial: Option<PathBuf>,
}

impl MeasuringProcess {
    fn start(program: &Program, request: &Request) -> io::Result<(Self, ChildStdin, ChildStdout)> {
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

    async fn result(
        &mut self,
        mut stdin: ChildStdin,
        stdout: ChildStdout,
        request: &str,
        on_progress: impl Fn(Progress),
    ) -> Result<Measured, Error> {
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
                Ok(Line::Progress(progress)) => on_progress(progress),
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
    use std::cell::RefCell;

    use super::*;

    /// A script in place of the program that measures.
    fn script(text: &str) -> Program {
        Program {
            path: "/bin/sh".into(),
            args: ["-c", text].map(Into::into).to_vec(),
            env: Vec::new(),
            name: "script".to_owned(),
        }
    }

    fn request(f16: Option<PathBuf>) -> Request {
        Request {
            model: "m.gguf".into(),
            adapters: vec![("a.gguf".into(), 0.1)],
            samples: "held_out.jsonl".into(),
            f16,
            threads: 1,
            context: None,
            devices: None,
            gpu_layers: None,
        }
    }

    async fn measured(text: &str, cancelled: &CancellationToken) -> (Result<Measured, Error>, Vec<Progress>) {
        let progress = RefCell::new(Vec::new());
        let take = |of| progress.borrow_mut().push(of);
        let result = measure(&script(text), &request(None), cancelled, take).await;
        (result, progress.into_inner())
    }

    #[tokio::test]
    async fn progress_comes_before_the_result_and_what_a_library_prints_is_ignored() {
        let text = r#"read request; echo warming up
            echo '{"progress":{"dequantized":{"fraction":0.5}}}'; echo '{"progress":{"computed":{"samples":1,"of":2}}}'
            echo '{"measured":{"nats":3.0,"tokens":2,"samples":2,"f16_bytes":null}}'; exec sleep 60"#;
        let (result, progress) = measured(text, &CancellationToken::new()).await;
        let measured = result.unwrap();
        assert_eq!((measured.mean(), measured.samples, measured.f16_bytes), (1.5, 2, None));
        assert_eq!(progress, [Progress::Dequantized { fraction: 0.5 }, Progress::Computed { samples: 1, of: 2 }]);
    }

    #[tokio::test]
    async fn what_the_process_reads_is_the_request() {
        let text = r#"read -r request; echo "{\"failed\":{\"message\":\"$(printf %s "$request" | tr -d '\"')\",\"is_transient\":true}}""#;
        let Err(Error::Failed(failure)) = measured(text, &CancellationToken::new()).await.0 else { panic!() };
        assert!(failure.is_transient && failure.message.starts_with("{model:m.gguf,adapters:[[a.gguf,0.1]],"));
    }

    #[tokio::test]
    async fn an_end_without_a_result_has_its_reason() {
        let (result, _) = measured("read request; echo 'no such device' >&2; exit 3", &CancellationToken::new()).await;
        let error = result.unwrap_err();
        assert!(error.is_transient() && error.to_string() == "failed to measure the loss: no such device", "{error}");
        let (result, _) = measured("read request; kill -ABRT $$", &CancellationToken::new()).await;
        assert!(result.unwrap_err().to_string().contains("llama.cpp aborted (SIGABRT)"));
        let missing = Program { path: "/nowhere/artel".into(), ..script("") };
        let result = measure(&missing, &request(None), &CancellationToken::new(), |_| ()).await;
        assert!(matches!(result, Err(Error::Start(_))));
    }

    #[tokio::test]
    async fn a_cancelled_measurement_leaves_no_process_and_no_part_of_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("m.f16.gguf");
        // It ignores the end of its standard input, and tells its process id by its progress.
        let text = format!(
            r#"read request; echo part > '{}'; echo "{{\"progress\":{{\"computed\":{{\"samples\":$$,\"of\":1}}}}}}"; exec sleep 60"#,
            artel_gguf::partial_path(&to).display()
        );
        let (cancelled, id) = (CancellationToken::new(), RefCell::new(0));
        let on_progress = |progress| {
            let Progress::Computed { samples, .. } = progress else { panic!("{progress:?}") };
            id.replace(samples);
            cancelled.cancel();
        };
        let result = measure(&script(&text), &request(Some(to)), &cancelled, on_progress).await;
        assert!(matches!(result, Err(Error::Cancelled)));
        let id = nix::unistd::Pid::from_raw(id.take() as i32);
        assert!(nix::sys::signal::kill(id, None).is_err(), "the process is gone");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

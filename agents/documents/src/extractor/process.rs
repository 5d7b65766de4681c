//! A worker process, and what its end says.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::error::{DocumentError, one_line};
use crate::limits::LoadLimits;

/// The last lines of a process that ended; parsers may write a lot before.
const STDERR_BYTES: usize = 4096;
/// A timeout of a socket is not zero.
const LEAST_TIMEOUT: Duration = Duration::from_millis(1);

/// The program that serves: [`worker::serve_on_stdin`](crate::worker::serve_on_stdin).
#[derive(Debug, Clone)]
pub struct ExtractorProgram {
    /// The path of the executable.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its whole environment: it inherits nothing, since a variable of this process may be secret.
    pub env: Vec<(OsString, OsString)>,
}

#[derive(Debug)]
pub(super) struct WorkerProcess {
    child: Child,
    socket: UnixStream,
    /// Ends with the process, and gives what it wrote last.
    stderr: Option<JoinHandle<String>>,
}

impl WorkerProcess {
    pub(super) fn start(program: &ExtractorProgram) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&program.path);
        command.args(&program.args).env_clear().envs(program.env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::piped());
        // Signals of a terminal reach only the program that waits for it.
        let mut child = command.process_group(0).spawn()?;
        let stderr = child.stderr.take().map(|stderr| thread::spawn(|| last_bytes(stderr)));
        Ok(Self { child, socket: ours, stderr })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its socket, which fails with [`ErrorKind::TimedOut`] from then on.
    pub(super) fn until(&mut self, deadline: Instant) -> DeadlineSocket<'_> {
        DeadlineSocket { socket: &self.socket, deadline }
    }

    /// Ends the process, and makes a reason of what failed.
    pub(super) fn failed(mut self, error: &io::Error, limits: &LoadLimits) -> DocumentError {
        if error.kind() == ErrorKind::TimedOut {
            return DocumentError::TimedOut { seconds: limits.time.as_secs() };
        }
        let has_ended =
            matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
        if !has_ended {
            return DocumentError::Unavailable { cause: format!("its worker cannot be used: {error}") };
        }
        // Its standard error ends when it does.
        let written = self.stderr.take().and_then(|stderr| stderr.join().ok()).unwrap_or_default();
        match self.child.wait() {
            Ok(status) => end_reason(status, &written, limits),
            Err(error) => DocumentError::Unavailable { cause: format!("its worker cannot be waited for: {error}") },
        }
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // Both fail only if it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that ended before it answered.
fn end_reason(status: ExitStatus, written: &str, limits: &LoadLimits) -> DocumentError {
    // Of Rust and of the grammars of source code.
    if written.contains("memory allocation of") || written.contains("failed to allocate") {
        return DocumentError::OutOfMemory { limit: limits.memory_bytes };
    }
    if written.contains("has overflowed its stack") {
        return DocumentError::Crashed {
            cause: "its parts are nested too deeply or in a circle (stack overflow)".to_owned(),
        };
    }
    let signal = status.signal().and_then(|signal| Signal::try_from(signal).ok());
    if signal == Some(Signal::SIGXCPU) {
        return DocumentError::TimedOut { seconds: limits.time.as_secs() };
    }
    let end = signal.map_or_else(|| status.to_string(), |signal| signal.to_string());
    let last = written.lines().rev().find(|line| !line.trim().is_empty()).map(one_line);
    DocumentError::Crashed { cause: last.map_or(end.clone(), |last| format!("{end}: {last}")) }
}

fn last_bytes(mut stderr: ChildStderr) -> String {
    let (mut last, mut piece) = (Vec::new(), [0; STDERR_BYTES]);
    loop {
        match stderr.read(&mut piece) {
            Ok(0) => break,
            Ok(bytes) => last.extend_from_slice(&piece[..bytes]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
        last.drain(..last.len().saturating_sub(STDERR_BYTES));
    }
    String::from_utf8_lossy(&last).into_owned()
}

/// A socket whose reads and writes end with a deadline.
#[derive(Debug)]
pub(super) struct DeadlineSocket<'s> {
    socket: &'s UnixStream,
    deadline: Instant,
}

impl DeadlineSocket<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left.max(LEAST_TIMEOUT))) }
    }
}

impl Read for DeadlineSocket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        self.socket.read(buffer).map_err(timed_out)
    }
}

impl Write for DeadlineSocket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        self.socket.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The system calls a timeout of a socket by another name.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

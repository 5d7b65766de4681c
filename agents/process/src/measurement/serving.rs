//! The side of the process that measures.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Line, Measured, MeasurementFailure, MeasurementRequest};

/// Paths of a model, of samples and of adapters, and little else.
const MAX_REQUEST_BYTES: u64 = 1 << 20;

/// Reads a request from standard input, calls `measure` with it, and writes its result to standard output. When
/// standard input closes before, the daemon has no use for the result: this process ends at once, and leaves no part of a copy.
///
/// # Errors
/// If there is no request, or the result cannot be written. What `measure` returns is told on standard output.
pub fn serve_on_stdin(
    measure: impl FnOnce(&MeasurementRequest) -> Result<Measured, MeasurementFailure>,
) -> io::Result<()> {
    let mut line = String::new();
    io::stdin().lock().take(MAX_REQUEST_BYTES).read_line(&mut line)?;
    let request: MeasurementRequest = serde_json::from_str(&line)?;
    let partial = request.f16.as_deref().map(artel_gguf::partial_path);
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        // Whatever else comes is no request.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        if let Some(partial) = partial {
            let _ = std::fs::remove_file(partial);
        }
        // Another thread computes: destructors would free what it uses.
        let _ = kill(Pid::this(), Signal::SIGKILL);
    })?;
    write(&match measure(&request) {
        Ok(measured) => Line::Measured(measured),
        Err(failure) => Line::Failed(failure),
    })
}

fn write(line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

//! The process that reads files: one request at a time, each answered with chunks or one reason.
//!
//! It bounds its own memory and processor time, for the file at hand: what a parser asks for beyond it ends the process, and
//! the [`Extractor`](crate::Extractor) at the other end makes a reason of that.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::unistd::{SysconfVar, sysconf};
use sha2::{Digest, Sha256};

use crate::chunk::{DocumentChunk, chunk};
use crate::error::DocumentError;
use crate::format::{format_by_name, format_of};
use crate::limits::LoadLimits;
use crate::load::load;
use crate::read_file;
use crate::wire::{self, ExtractReply, ExtractRequest, Extracted, PayloadKind};

/// Parsers of PDF, and of HTML within the limit of nesting, call themselves for each level; pages of it are used as needed.
const STACK_BYTES: usize = 64 << 20;
/// A reply of so much text is sent before the next one is begun, so that neither side holds all of it twice.
const BATCH_BYTES: usize = 1 << 20;
const MAX_PATH_BYTES: u64 = 64 << 10;

/// Serves the socket that is the standard input of this process, until the other end closes it.
///
/// # Errors
/// The socket's.
pub fn serve_on_stdin() -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    serve(socket.try_clone()?, socket)
}

/// Answers requests until `input` ends.
///
/// # Errors
/// Those of `input` and `output`.
pub fn serve(input: impl Read + Send, output: impl Write + Send) -> io::Result<()> {
    let worker = Worker { input, output };
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("extract".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || worker.run())?;
        worker.join().unwrap_or_else(|_| Err(io::Error::other("the worker panicked")))
    })
}

struct Worker<I, O> {
    input: I,
    output: O,
}

impl<I: Read, O: Write> Worker<I, O> {
    fn run(mut self) -> io::Result<()> {
        let program_bytes = mapped_bytes()?;
        while let Some(request) = wire::read_message::<ExtractRequest>(&mut self.input)? {
            let limited = limit_process(&request.limits, program_bytes);
            let max_bytes = match request.payload {
                PayloadKind::Path => MAX_PATH_BYTES,
                PayloadKind::Content { .. } => request.limits.file_bytes,
            };
            let payload = match wire::read_frame(&mut self.input, max_bytes) {
                Err(error) if error.kind() == ErrorKind::OutOfMemory => None,
                payload => Some(payload?),
            };
            let answer = match (limited, payload) {
                (Ok(()), Some(payload)) => extract(&request, payload),
                (Ok(()), None) => Err(DocumentError::OutOfMemory { limit: request.limits.memory_bytes }),
                (Err(error), _) => {
                    Err(DocumentError::Unavailable { cause: format!("its limits cannot be set: {error}") })
                }
            };
            match answer {
                Ok((chunks, mut done)) => {
                    self.chunks(chunks)?;
                    done.is_bloated = mapped_bytes()? > program_bytes + request.limits.memory_bytes / 2;
                    wire::write_message(&mut self.output, &ExtractReply::Done(done))?;
                }
                Err(error) => wire::write_message(&mut self.output, &ExtractReply::Failed(error))?,
            }
        }
        Ok(())
    }

    fn chunks(&mut self, chunks: Vec<DocumentChunk>) -> io::Result<()> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for chunk in chunks {
            bytes += chunk.text.len() + chunk.header.as_ref().map_or(0, String::len);
            batch.push(chunk);
            if bytes >= BATCH_BYTES {
                wire::write_message(&mut self.output, &ExtractReply::Chunks(std::mem::take(&mut batch)))?;
                bytes = 0;
            }
        }
        if batch.is_empty() { Ok(()) } else { wire::write_message(&mut self.output, &ExtractReply::Chunks(batch)) }
    }
}

fn extract(request: &ExtractRequest, payload: Vec<u8>) -> Result<(Vec<DocumentChunk>, Extracted), DocumentError> {
    let limits = &request.limits;
    let (path, bytes, stamp) = match &request.payload {
        PayloadKind::Path => {
            let path = PathBuf::from(OsStr::from_bytes(&payload));
            let (bytes, stamp) = read_file::read(&path, limits)?;
            (path, bytes, Some(stamp))
        }
        PayloadKind::Content { name } => (Path::new(name).to_owned(), payload, None),
    };
    if bytes.is_empty() {
        return Err(DocumentError::Empty);
    }
    // A text by its name that is none is refused for what it holds.
    let format = request
        .format
        .or_else(|| format_of(&path, &bytes))
        .or_else(|| format_by_name(&path))
        .ok_or(DocumentError::UnknownFormat)?;
    let document = load(&bytes, format, limits)?;
    let sha256 = Sha256::digest(&bytes).into();
    drop(bytes);
    let chunks = chunk(&document, request.size, &|text| request.rates.count(text));
    if chunks.len() as u64 > u64::from(limits.chunks) {
        return Err(DocumentError::too_many("chunks", limits.chunks.into()));
    }
    Ok((chunks, Extracted { format, stamp, sha256, warnings: document.warnings, is_bloated: false }))
}

/// Bounds this process for the next file. The soft limits alone, which the next request may raise again.
fn limit_process(limits: &LoadLimits, program_bytes: u64) -> io::Result<()> {
    lower(Resource::RLIMIT_AS, program_bytes.saturating_add(limits.memory_bytes))?;
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let used = usage.user_time().tv_sec() + usage.system_time().tv_sec();
    // The second that has begun is not theirs.
    lower(Resource::RLIMIT_CPU, used.unsigned_abs() + 1 + limits.time.as_secs().max(1))
}

fn lower(resource: Resource, soft: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    Ok(setrlimit(resource, soft.min(hard), hard)?)
}

/// The address space of this process.
fn mapped_bytes() -> io::Result<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').next().and_then(|pages| pages.parse::<u64>().ok());
    let page_bytes = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|bytes| u64::try_from(bytes).ok());
    let bytes = pages.zip(page_bytes).map(|(pages, bytes)| pages * bytes);
    bytes.ok_or_else(|| io::Error::other("/proc/self/statm has no number of pages"))
}

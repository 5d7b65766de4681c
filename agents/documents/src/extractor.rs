//! The side of a worker that outlives it.

mod process;

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

pub use process::ExtractorProgram;
use process::WorkerProcess;

use crate::chunk::{ChunkSize, DocumentChunk};
use crate::error::DocumentError;
use crate::format::Format;
use crate::limits::LoadLimits;
use crate::read_file::ReadStamp;
use crate::tokens::TokenRates;
use crate::wire::{self, ExtractReply, ExtractRequest, Extracted, PayloadKind};

/// What is to be read.
#[derive(Debug, Clone, Copy)]
pub enum FileSource<'f> {
    /// A file.
    Path(&'f Path),
    /// Bytes that were handed in.
    Content {
        /// A name whose extension tells the format.
        name: &'f str,
        /// The bytes.
        bytes: &'f [u8],
    },
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extraction {
    /// Its chunks, in the order of the text.
    pub chunks: Vec<DocumentChunk>,
    /// What it was read as.
    pub format: Format,
    /// What the system said of the file whose bytes were read; `None` for bytes that were handed in.
    pub stamp: Option<ReadStamp>,
    /// The hash of the bytes that were read.
    pub sha256: [u8; 32],
    /// Pages and sheets that could not be read, in one line each.
    pub warnings: Vec<String>,
}

/// Reads files in a process of its own, which it starts at the first file and again whenever one has ended it.
///
/// Dropping it ends the process.
#[derive(Debug)]
pub struct Extractor {
    program: ExtractorProgram,
    limits: LoadLimits,
    size: ChunkSize,
    rates: TokenRates,
    process: Option<WorkerProcess>,
}

impl Extractor {
    /// Starts nothing yet.
    #[must_use]
    pub fn new(program: ExtractorProgram, limits: LoadLimits, size: ChunkSize, rates: TokenRates) -> Self {
        Self { program, limits, size, rates, process: None }
    }

    /// Reads a file as `format`, or as what its name and first bytes say; blocks until it is read, at most for
    /// five times [`LoadLimits::time`], or twice as long if a process that had read others fails at it.
    ///
    /// # Errors
    /// One reason.
    pub fn extract(&mut self, source: FileSource<'_>, format: Option<Format>) -> Result<Extraction, DocumentError> {
        let was_used = self.process.is_some();
        match self.attempt(source, format) {
            // What files before it have left in that process may be what it failed at.
            Err(
                DocumentError::Crashed { .. } | DocumentError::OutOfMemory { .. } | DocumentError::Unavailable { .. },
            ) if was_used => self.attempt(source, format),
            result => result,
        }
    }

    /// The id of the process, while there is one.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(WorkerProcess::id)
    }

    fn attempt(&mut self, source: FileSource<'_>, format: Option<Format>) -> Result<Extraction, DocumentError> {
        let mut process = match self.process.take() {
            Some(process) => process,
            None => WorkerProcess::start(&self.program).map_err(|error| DocumentError::Unavailable {
                cause: format!("{} cannot be started: {error}", self.program.path.display()),
            })?,
        };
        let request =
            |payload| ExtractRequest { payload, format, limits: self.limits, size: self.size, rates: self.rates };
        let (request, payload) = match source {
            FileSource::Path(path) => (request(PayloadKind::Path), path.as_os_str().as_bytes()),
            FileSource::Content { bytes, .. } if bytes.len() as u64 > self.limits.file_bytes => {
                self.process = Some(process);
                return Err(DocumentError::TooLarge { bytes: bytes.len() as u64, limit: self.limits.file_bytes });
            }
            FileSource::Content { name, bytes } => (request(PayloadKind::Content { name: name.to_owned() }), bytes),
        };
        match exchange(&mut process, &request, payload, self.limits) {
            Ok(Ok((chunks, done))) => {
                if !done.is_bloated {
                    self.process = Some(process);
                }
                let Extracted { format, stamp, sha256, warnings, .. } = done;
                Ok(Extraction { chunks, format, stamp, sha256, warnings })
            }
            Ok(Err(error)) => {
                self.process = Some(process);
                Err(error)
            }
            Err(error) => Err(process.failed(&error, &self.limits)),
        }
    }
}

/// Sends a request and takes its answer, within the time of the limits.
fn exchange(
    process: &mut WorkerProcess,
    request: &ExtractRequest,
    payload: &[u8],
    limits: LoadLimits,
) -> io::Result<Result<(Vec<DocumentChunk>, Extracted), DocumentError>> {
    let mut socket = process.until(Instant::now() + limits.wall_time());
    wire::write_message(&mut socket, request)?;
    wire::write_frame(&mut socket, payload)?;
    let mut chunks = Vec::new();
    loop {
        match wire::read_message(&mut socket)? {
            Some(ExtractReply::Chunks(batch)) => chunks.extend(batch),
            Some(ExtractReply::Done(done)) => return Ok(Ok((chunks, done))),
            Some(ExtractReply::Failed(error)) => return Ok(Err(error)),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

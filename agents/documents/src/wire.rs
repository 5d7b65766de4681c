//! What the two sides of a worker say to each other: frames of a length and as many bytes. Both are the same program.

use std::io::{self, ErrorKind, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::chunk::{ChunkSize, DocumentChunk};
use crate::error::DocumentError;
use crate::format::Format;
use crate::limits::LoadLimits;
use crate::read_file::ReadStamp;
use crate::tokens::TokenRates;

/// The largest frame of JSON: a batch of chunks has some megabytes.
const MAX_MESSAGE_BYTES: usize = 256 << 20;

/// A file to read. A frame with the bytes of its path, or with its content, follows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExtractRequest {
    pub(crate) payload: PayloadKind,
    pub(crate) format: Option<Format>,
    pub(crate) limits: LoadLimits,
    pub(crate) size: ChunkSize,
    pub(crate) rates: TokenRates,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PayloadKind {
    Path,
    /// The content of what is called `name`.
    Content {
        name: String,
    },
}

/// What follows a request: batches of chunks, then one of the others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExtractReply {
    Chunks(Vec<DocumentChunk>),
    Done(Extracted),
    Failed(DocumentError),
}

/// The end of a file that was read.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Extracted {
    pub(crate) format: Format,
    pub(crate) stamp: Option<ReadStamp>,
    pub(crate) sha256: [u8; 32],
    pub(crate) warnings: Vec<String>,
    /// Whether the process holds so much memory that another one should read the next file.
    pub(crate) is_bloated: bool,
}

pub(crate) fn write_message(output: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    write_frame(output, &serde_json::to_vec(message)?)
}

pub(crate) fn write_frame(output: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    output.write_all(&(bytes.len() as u64).to_le_bytes())?;
    output.write_all(bytes)?;
    output.flush()
}

/// The next message, or `None` where the other side has ended between two messages.
pub(crate) fn read_message<M: DeserializeOwned>(input: &mut impl Read) -> io::Result<Option<M>> {
    let mut length = [0; 8];
    loop {
        match input.read(&mut length[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    input.read_exact(&mut length[1..])?;
    let bytes = read_body(input, length, MAX_MESSAGE_BYTES as u64)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

/// A frame of bytes.
///
/// # Errors
/// Those of `input`, or [`ErrorKind::OutOfMemory`], which leaves the frame behind.
pub(crate) fn read_frame(input: &mut impl Read, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    read_body(input, length, max_bytes)
}

fn read_body(input: &mut impl Read, length: [u8; 8], max_bytes: u64) -> io::Result<Vec<u8>> {
    let length = u64::from_le_bytes(length);
    if length > max_bytes {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("a frame of {length} bytes, and the limit is {max_bytes}"),
        ));
    }
    let mut bytes = Vec::new();
    let mut body = input.take(length);
    if bytes.try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX)).is_err() {
        // The next frame begins behind this one.
        io::copy(&mut body, &mut io::sink())?;
        return Err(ErrorKind::OutOfMemory.into());
    }
    body.read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

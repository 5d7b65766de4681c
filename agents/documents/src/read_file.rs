//! The bytes of a file as they were at one moment.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use crate::error::DocumentError;
use crate::limits::LoadLimits;

/// What the system says of a file: if it is the same again, the content is taken to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReadStamp {
    /// The device.
    pub device: u64,
    /// The number of the file on it.
    pub inode: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// When its content changed last, in nanoseconds since 1970.
    pub modified_ns: i128,
}

impl ReadStamp {
    /// That of a file.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
        }
    }
}

/// How often a file is read that changes meanwhile: editors write in one go, and what is still written to is read later.
const MAX_ATTEMPTS: usize = 2;

/// The content of a regular file that did not change while it was read; symbolic links are followed.
pub(crate) fn read(path: &Path, limits: &LoadLimits) -> Result<(Vec<u8>, ReadStamp), DocumentError> {
    read_with(path, limits, |file, bytes| file.read_to_end(bytes).map(|_| ()))
}

/// `fill` reads the file; a test writes to it meanwhile.
fn read_with(
    path: &Path,
    limits: &LoadLimits,
    mut fill: impl FnMut(&mut dyn Read, &mut Vec<u8>) -> io::Result<()>,
) -> Result<(Vec<u8>, ReadStamp), DocumentError> {
    let max_bytes = limits.file_bytes;
    for _ in 0..MAX_ATTEMPTS {
        // A pipe that no program writes to would be waited for.
        let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
        let file = file.map_err(|error| open_error(path, &error))?;
        let stat = |file: &File| file.metadata().map_err(|error| DocumentError::unreadable(&error));
        let metadata = stat(&file)?;
        if !metadata.is_file() {
            return Err(DocumentError::NotAFile { kind: kind_name(&metadata).to_owned() });
        }
        let before = ReadStamp::of(&metadata);
        if before.bytes > max_bytes {
            return Err(DocumentError::TooLarge { bytes: before.bytes, limit: max_bytes });
        }
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(usize::try_from(before.bytes).unwrap_or(usize::MAX)).is_err() {
            return Err(DocumentError::OutOfMemory { limit: limits.memory_bytes });
        }
        fill(&mut (&file).take(max_bytes + 1), &mut bytes).map_err(|error| DocumentError::unreadable(&error))?;
        let after = ReadStamp::of(&stat(&file)?);
        // An editor that replaces the file leaves the open one as it was.
        let named = std::fs::metadata(path).map(|metadata| ReadStamp::of(&metadata));
        if before == after && named.is_ok_and(|named| named == after) && bytes.len() as u64 == after.bytes {
            return Ok((bytes, after));
        }
    }
    Err(DocumentError::Changing)
}

/// A socket cannot be opened at all.
fn open_error(path: &Path, error: &io::Error) -> DocumentError {
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => DocumentError::NotAFile { kind: kind_name(&metadata).to_owned() },
        _ => DocumentError::unreadable(error),
    }
}

fn kind_name(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests;

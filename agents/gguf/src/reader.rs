//! Reads the numbers and texts of a header, and never allocates what the file cannot hold.

use std::io::{self, BufRead};
use std::path::Path;

use crate::error::Error;

/// Why a header cannot be read. Its texts repeat names of keys, and no content of the file: a client may have named the file.
pub(crate) enum HeaderFault {
    NotGguf,
    Version(u32),
    Damaged(String),
    OverBudget(String),
    Read(io::Error),
}

impl HeaderFault {
    pub(crate) fn into_error(self, path: &Path, size: u64) -> Error {
        let path = path.to_owned();
        match self {
            Self::NotGguf => Error::NotGguf { path },
            Self::Version(version) => Error::Version { path, version },
            Self::Damaged(reason) => Error::Damaged { path, reason },
            Self::OverBudget(reason) => Error::OverBudget { path, reason },
            Self::Read(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Error::Truncated { path, required_bytes: size.saturating_add(1), actual_bytes: size }
            }
            Self::Read(source) => Error::of_read(&path, source),
        }
    }
}

impl From<io::Error> for HeaderFault {
    fn from(e: io::Error) -> Self {
        Self::Read(e)
    }
}

/// Tracks the offset, because tensor data begins at the next aligned byte after the header.
pub(crate) struct HeaderReader<R> {
    inner: R,
    offset: u64,
    size: u64,
}

impl<R: BufRead> HeaderReader<R> {
    /// A reader at the beginning of a file of `size` bytes.
    pub(crate) fn new(inner: R, size: u64) -> Self {
        Self { inner, offset: 0, size }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], HeaderFault> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.offset += N as u64;
        Ok(bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, HeaderFault> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, HeaderFault> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A number that counts something of which there is a most.
    pub(crate) fn count(&mut self, max: u64, what: &str) -> Result<u64, HeaderFault> {
        match self.u64()? {
            count if count <= max => Ok(count),
            count => Err(HeaderFault::Damaged(format!("{count} {what} exceed the limit of {max}"))),
        }
    }

    /// A text of this length, which the caller has bounded.
    pub(crate) fn text(&mut self, length: u64) -> Result<String, HeaderFault> {
        self.require(length)?;
        let mut bytes = vec![0; length as usize];
        self.inner.read_exact(&mut bytes)?;
        self.offset += length;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Passes over bytes without keeping them.
    pub(crate) fn skip(&mut self, length: u64) -> Result<(), HeaderFault> {
        self.require(length)?;
        let mut remaining = length;
        while remaining > 0 {
            let step = remaining.min(self.inner.fill_buf()?.len() as u64);
            if step == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.inner.consume(step as usize);
            remaining -= step;
        }
        self.offset += length;
        Ok(())
    }

    /// Refuses what needs more bytes than the rest of the file has.
    pub(crate) fn require(&self, bytes: u64) -> Result<(), HeaderFault> {
        match bytes <= self.size.saturating_sub(self.offset) {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

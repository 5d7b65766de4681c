//! A bounded buffer for what a template renders.

use std::io;

/// The largest text that a template may render: more than the context of any model.
pub const MAX_RENDERED_BYTES: usize = 1024 * 1024;

/// A writer that refuses to grow beyond its limit.
pub(crate) struct BoundedWriter {
    pub(crate) bytes: Vec<u8>,
    limit: usize,
}

impl BoundedWriter {
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit }
    }
}

impl io::Write for BoundedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            return Err(io::Error::other("too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

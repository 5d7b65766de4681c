//! A bounded buffer for what a template renders.

use std::io;

/// The largest text that a template may render: more than the context of any model.
pub const MAX_RENDERED_BYTES: usize = 1024 * 1024;

/// A writer that refuses to grow beyond [`MAX_RENDERED_BYTES`].
#[derive(Default)]
pub(crate) struct BoundedWriter(pub(crate) Vec<u8>);

impl io::Write for BoundedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_RENDERED_BYTES {
            return Err(io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! Files that a process locks while it writes what belongs to them.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::Error;

/// Opens a file, which is made if there is none, and locks it; none while another process holds the lock.
pub(crate) fn try_lock(path: &Path) -> Result<Option<File>, Error> {
    let failed = |e: io::Error| Error::file("write", path, e);
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let file = file.map_err(failed)?;
    // To open a FIFO for both does not block; to read it would.
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(e)) => return Err(Error::file("lock", path, e)),
    }
    // The previous holder of the lock may have renamed or removed it.
    let is_same = |other: fs::Metadata| file.metadata().is_ok_and(|own| own.ino() == other.ino());
    Ok(fs::metadata(path).is_ok_and(is_same).then_some(file))
}

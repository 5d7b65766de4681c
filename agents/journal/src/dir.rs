//! The directory of the journal: private to its user, locked against a second daemon.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use crate::Error;

/// Creates the directory (0700) if it is missing and takes its lock, which is held as long as the file stays open.
pub(crate) fn open(dir: &Path) -> Result<File, Error> {
    create(dir).map_err(|source| Error::Directory { path: dir.to_owned(), source: source.into() })?;
    let path = dir.join("journal.lock");
    let failed = |source: io::Error| Error::Directory { path: path.clone(), source: source.into() };
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Free space that is needed before writes continue after a full disk: enough for many transactions.
const PROBE_BYTES: usize = 1 << 20;

/// Whether the disk of the journal has space for more than a few writes.
pub(crate) fn has_free_space(journal: &Path) -> bool {
    probe_write(journal).is_ok()
}

/// Whether the journal cannot be written because the disk is full, or a quota or a file size limit is reached. SQLite
/// reports all of these as a failed write only.
pub(crate) fn is_disk_full(journal: &Path) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    probe_write(journal).is_err_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge))
}

fn probe_write(journal: &Path) -> io::Result<()> {
    let path = journal.with_extension("room");
    let written = std::fs::write(&path, vec![0; PROBE_BYTES]).and_then(|()| File::open(&path)?.sync_all());
    // A leftover file does no harm: the next probe overwrites it.
    written.and(std::fs::remove_file(&path))
}

/// Creates the directory and syncs its parents: without that, a power cut can remove a new directory and the acknowledged
/// tasks in it.
pub(crate) fn create(dir: &Path) -> io::Result<()> {
    let missing: Vec<_> = dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
    private_builder().create(dir)?;
    for created in missing {
        sync(created.parent().unwrap_or(Path::new("")))?;
    }
    Ok(())
}

fn private_builder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

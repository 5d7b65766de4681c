//! The journal's directory: made private, locked against a second daemon.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use crate::Error;

/// Makes the directory (0700) where it is missing and takes its lock, which lasts as long as the file stays open.
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

/// What must fit beside a journal whose disk was full before it writes again: many transactions.
const ROOM: usize = 1 << 20;

/// Whether the disk of the journal has room for more than a few writes.
pub(crate) fn has_room(journal: &Path) -> bool {
    fill(journal).is_ok()
}

/// Whether what keeps the journal from being written is that no more may be: the disk is full, or a quota or a limit of
/// files is reached, of which SQLite says no more than that a write failed.
pub(crate) fn is_full(journal: &Path) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    fill(journal).is_err_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge))
}

fn fill(journal: &Path) -> io::Result<()> {
    let path = journal.with_extension("room");
    let filled = std::fs::write(&path, vec![0; ROOM]).and_then(|()| File::open(&path)?.sync_all());
    // It is as good gone as it is there: the next look writes it anew.
    filled.and(std::fs::remove_file(&path))
}

/// A new directory can vanish in a power cut until its parent is synced, and the acknowledged tasks with it.
pub(crate) fn create(dir: &Path) -> io::Result<()> {
    let missing: Vec<_> = dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
    private().create(dir)?;
    for made in missing {
        sync(made.parent().unwrap_or(Path::new("")))?;
    }
    Ok(())
}

fn private() -> DirBuilder {
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

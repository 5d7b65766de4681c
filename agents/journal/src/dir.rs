//! The directory of the journal: private to its user, locked against a second daemon.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError, metadata, set_permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::unistd::geteuid;

use crate::Error;

/// The mode of the directory: all for its user, nothing for others.
const PRIVATE_MODE: u32 = 0o700;
/// The bits of a mode that let others in.
const OTHERS_MODE: u32 = 0o077;

/// Why a directory is not private.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirExposure {
    /// It belongs to another user.
    Owner {
        /// The number of its owner.
        owner: u32,
        /// The number of this process's user.
        user: u32,
    },
    /// Other users may enter or list it.
    Mode(u32),
}

/// Why a directory is not private; `None` if it is, or does not exist.
///
/// # Errors
/// The system does not tell its owner and mode.
pub fn exposure(dir: &Path) -> io::Result<Option<DirExposure>> {
    let found = match metadata(dir) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (owner, user, mode) = (found.uid(), geteuid().as_raw(), found.mode() & 0o7777);
    Ok(match (owner == user, mode & OTHERS_MODE) {
        (false, _) => Some(DirExposure::Owner { owner, user }),
        (true, 0) => None,
        (true, _) => Some(DirExposure::Mode(mode)),
    })
}

/// Makes a directory that only this user can enter: creates it if it is missing, and takes away what others may do there. Every
/// program that writes to the data directory calls this first.
///
/// # Errors
/// [`Error::Directory`]; [`Error::ForeignDirectory`] if it belongs to another user; [`Error::OpenDirectory`] if its file system
/// does not keep modes.
pub fn prepare(dir: &Path) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Directory { path: dir.to_owned(), source: source.into() };
    create(dir).map_err(failed)?;
    match exposure(dir).map_err(failed)? {
        None => return Ok(()),
        Some(DirExposure::Owner { owner, user }) => {
            return Err(Error::ForeignDirectory { path: dir.to_owned(), owner, user });
        }
        Some(DirExposure::Mode(mode)) => {
            tracing::warn!(dir = %dir.display(), mode = format!("{mode:04o}"), "other users could read the data directory; its mode is now 0700");
        }
    }
    set_permissions(dir, Permissions::from_mode(PRIVATE_MODE)).map_err(failed)?;
    match exposure(dir).map_err(failed)? {
        None => Ok(()),
        Some(_) => Err(Error::OpenDirectory { path: dir.to_owned() }),
    }
}

/// Prepares the directory and takes its lock, which is held as long as the file stays open.
pub(crate) fn open(dir: &Path) -> Result<File, Error> {
    prepare(dir)?;
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
    DirBuilder::new().recursive(true).mode(PRIVATE_MODE).create(dir)?;
    for created in missing {
        sync(created.parent().unwrap_or(Path::new("")))?;
    }
    Ok(())
}

pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(dir: &Path) -> u32 {
        metadata(dir).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_directory_is_made_private_whoever_made_it() {
        let temporary = tempfile::TempDir::new().unwrap();
        let dir = temporary.path().join("state/artel");
        assert_eq!(exposure(&dir).unwrap(), None);
        prepare(&dir).unwrap();
        assert_eq!((mode(&dir), mode(dir.parent().unwrap())), (0o700, 0o700));
        for open in [0o755, 0o750, 0o701, 0o2770] {
            set_permissions(&dir, Permissions::from_mode(open)).unwrap();
            assert_eq!(exposure(&dir).unwrap(), Some(DirExposure::Mode(open)));
            prepare(&dir).unwrap();
            assert_eq!(mode(&dir), 0o700);
        }
    }

    #[test]
    fn a_directory_of_another_user_is_refused_in_words() {
        let (owner, user) = (metadata("/").unwrap().uid(), geteuid().as_raw());
        let temporary = tempfile::TempDir::new().unwrap();
        let dir = if owner == user { temporary.path() } else { Path::new("/") };
        if owner == user && std::os::unix::fs::chown(dir, Some(user + 1), None).is_err() {
            // Neither is there a directory of another user, nor can one be made.
            return;
        }
        let error = prepare(dir).unwrap_err();
        assert!(matches!(error, Error::ForeignDirectory { .. }), "{error:?}");
        assert!(error.to_string().contains("belongs to user"), "{error}");
    }
}

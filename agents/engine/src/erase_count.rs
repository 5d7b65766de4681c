//! The number of erases that a directory of prefix files has had, so that no engine writes a text into it that was erased.
//!
//! An engine notes the number before it takes its first text, and again when it forgets the texts of callers. It writes a file that
//! may hold such a text only if the number is still the noted one, and under a shared lock. An erase raises the number, and then
//! waits for the exclusive lock. So no engine needs to be told for the files' sake: not one that is being unloaded, and not one that
//! outlives its daemon for a while.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// The name of the file in the directory. Its length is the number, so that a crash cannot damage it.
pub(crate) const COUNT_FILE_NAME: &str = "erases";
/// How long an erase waits for files that are being written: the largest ones on a slow disk.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// The delay between two attempts to lock: short beside the time in which a file is written.
const LOCK_DELAY: Duration = Duration::from_millis(5);

/// The number of erases so far.
pub(crate) fn read(dir: &Path) -> u64 {
    // If it cannot be read now and can be later, then nothing is written, which costs time only.
    fs::metadata(dir.join(COUNT_FILE_NAME)).map_or(0, |file| file.len())
}

/// Writes something that may hold the text of a caller, unless there was an erase since the noted one; whether it was written.
pub(crate) fn write_if_current(dir: &Path, noted: u64, write: impl FnOnce() -> io::Result<()>) -> io::Result<bool> {
    let file = open(dir)?;
    file.lock_shared()?;
    if file.metadata()?.len() != noted {
        return Ok(false);
    }
    write().map(|()| true)
}

/// Counts an erase: what engines have noted before is of no use from now on.
pub(crate) fn raise(dir: &Path) -> io::Result<()> {
    let mut file = open(dir)?;
    file.write_all(b".")?;
    file.sync_all()
}

/// Runs something while no file is written that may hold the text of a caller.
pub(crate) fn while_none_is_written<T>(dir: &Path, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let file = open(dir)?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return run(),
            // Not a wait without end: a process that was stopped may hold it.
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_DELAY),
            Err(error) => return Err(error.into()),
        }
    }
}

fn open(dir: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(dir.join(COUNT_FILE_NAME))
}

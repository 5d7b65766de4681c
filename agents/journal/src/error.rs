//! Why the journal could not do what it was asked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_task::{RequestId, Seq, TaskId};

/// Why the journal could not do what it was asked. Cheap to clone, since one failed commit answers many callers.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory cannot be made or written.
    #[error("open the journal's directory {}: {source}; check that it exists, belongs to this user and is writable", .path.display())]
    Directory {
        /// The directory or the file in it.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Another journal has this directory open.
    #[error("lock {}: another daemon uses this directory; stop it or choose another directory", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A newer program wrote this journal.
    #[error("read the journal {}: its format is {found} and this program knows up to {known}; use the newer program", .path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// The version on disk.
        found: i64,
        /// The newest version that this program reads.
        known: i64,
    },
    /// The file is a database, but no journal.
    #[error("read the journal {}: it is another program's database; choose another directory", .path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// The file system cannot do what the write-ahead log needs.
    #[error("open the journal {}: its file system gives the journal mode `{mode}` instead of `wal`; use a local disk", .path.display())]
    NoWal {
        /// The database.
        path: PathBuf,
        /// The mode that SQLite fell back to.
        mode: String,
    },
    /// The disk is full.
    #[error("write the journal {}: the disk is full; free some space, and it goes on by itself", .path.display())]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// The database cannot be written or opened for lack of permission.
    #[error("write the journal {}: it is read-only ({source}); check the owner and the mount of its directory", .path.display())]
    ReadOnly {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: Arc<sqlx::Error>,
    },
    /// The database is damaged.
    #[error("read the journal {}: it is corrupted ({what}); stop the daemon and restore a copy, or keep what can be read with `artel journal repair`", .path.display())]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// Another program held the database for too long, or every reader is taken; nothing was written.
    #[error("reach the journal {}: it is busy ({source}); end other programs that have it open and try again", .path.display())]
    Busy {
        /// The database.
        path: PathBuf,
        /// What SQLite or the pool said.
        source: Arc<sqlx::Error>,
    },
    /// Any other failure of SQLite or the disk.
    #[error("use the journal {}: {source}; check the disk and the system's log", .path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: Arc<sqlx::Error>,
    },
    /// An earlier write failed, so nothing more is written until the journal is opened again.
    #[error("write the journal {}: it takes no more writes since it failed to {cause}; remedy that and restart the daemon", .path.display())]
    Broken {
        /// The database.
        path: PathBuf,
        /// The failure that came first.
        cause: Arc<Error>,
    },
    /// The journal is closed.
    #[error("use the journal {}: it is closed", .path.display())]
    Closed {
        /// The database.
        path: PathBuf,
    },
    /// The task is not in the journal.
    #[error("find task {task}: the journal has no such task; it may be too old to be kept")]
    NoTask {
        /// Which task.
        task: TaskId,
    },
    /// The event is not the next one of its task; another writer of the same task was faster.
    #[error("append to task {task}: event {found:?} came where {expected:?} was due; read its events again")]
    Gap {
        /// Which task.
        task: TaskId,
        /// The number that was due.
        expected: Seq,
        /// The number that came.
        found: Seq,
    },
    /// The task has its last event.
    #[error("append to task {task}: it has ended; submit a new task")]
    Ended {
        /// Which task.
        task: TaskId,
    },
    /// The request id belongs to a task that asked for something else.
    #[error("accept request `{}`: task {task} has this request id with another input, graph, role, class or labels; choose a fresh id", .request.as_str())]
    RequestReused {
        /// The client's key.
        request: RequestId,
        /// The task that has it.
        task: TaskId,
    },
    /// The event cannot be stored, or not in this place. A fault of the caller.
    #[error("store event {} of task {task}: {why}", .seq.0)]
    Unstorable {
        /// Which task.
        task: TaskId,
        /// Which event.
        seq: Seq,
        /// Why.
        why: String,
    },
}

impl Error {
    /// Whether SQLite says no more than that a write failed, and not why.
    pub(crate) fn is_failed_write(&self) -> bool {
        matches!(self, Self::Database { source, .. } if code(source) == Some(IOERR_WRITE))
    }

    /// Sorts what SQLite said by what a person can do about it.
    pub(crate) fn database(path: &Path, source: sqlx::Error) -> Self {
        let path = path.to_owned();
        // The low byte of an extended code is the primary one.
        match code(&source).map(|code| code & 0xff) {
            Some(FULL) => Self::Full { path },
            Some(PERM | READONLY | CANTOPEN | AUTH) => Self::ReadOnly { path, source: source.into() },
            Some(CORRUPT | NOTADB) => Self::Corrupt { path, what: source.to_string() },
            Some(BUSY | LOCKED) => Self::Busy { path, source: source.into() },
            _ => match source {
                sqlx::Error::PoolTimedOut => Self::Busy { path, source: source.into() },
                sqlx::Error::PoolClosed => Self::Closed { path },
                source => Self::Database { path, source: source.into() },
            },
        }
    }
}

// The primary result codes of SQLite, https://sqlite.org/rescode.html
const PERM: u32 = 3;
const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const READONLY: u32 = 8;
const CORRUPT: u32 = 11;
const FULL: u32 = 13;
const CANTOPEN: u32 = 14;
const AUTH: u32 = 23;
const NOTADB: u32 = 26;
/// An extended one.
const IOERR_WRITE: u32 = 778;

/// The extended code, which sqlx gives as text.
fn code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error()?.code()?.parse().ok()
}

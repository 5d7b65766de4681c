//! The errors of the journal.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_task::{RequestId, Seq, TaskId};

use crate::Damage;

/// Why an operation of the journal failed. Cheap to clone, since one failed commit answers many callers.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory cannot be created or written.
    #[error("cannot use the journal directory {}: {source}; check that it exists, belongs to this user and is writable", .path.display())]
    Directory {
        /// The directory or the file in it.
        path: PathBuf,
        /// The error of the system.
        source: Arc<io::Error>,
    },
    /// The directory belongs to another user, with whose rights what is in it can be replaced.
    #[error("cannot use the data directory {}: it belongs to user {owner}, and this program runs as user {user}; run it as that user, give it the directory with `chown -R {user}`, or choose another one with --data", .path.display())]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
        /// The number of its owner.
        owner: u32,
        /// The number of this process's user.
        user: u32,
    },
    /// Other users can enter the directory, and the file system does not let that be changed.
    #[error("cannot use the data directory {}: other users can read it, and its file system does not keep the mode 0700; choose one on a file system with modes, with --data", .path.display())]
    OpenDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Another journal has this directory open.
    #[error("cannot lock {}: another daemon uses this directory; stop it or choose another directory", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A newer program wrote this journal.
    #[error("cannot read the journal {}: its format is {found} and this program knows up to {known}; use the newer program", .path.display())]
    NewerFormat {
        /// The database.
        path: PathBuf,
        /// The format version on disk.
        found: i64,
        /// The newest format version that this program reads.
        known: i64,
    },
    /// The file is a database, but not a journal.
    #[error("cannot read the journal {}: it is the database of another program; choose another directory", .path.display())]
    NotAJournal {
        /// The database.
        path: PathBuf,
    },
    /// The file system does not support the write-ahead log.
    #[error("cannot open the journal {}: its file system gives the journal mode `{mode}` instead of `wal`; use a local disk", .path.display())]
    NoWal {
        /// The database.
        path: PathBuf,
        /// The journal mode that SQLite fell back to.
        mode: String,
    },
    /// The disk is full.
    #[error("cannot write the journal {}: the disk is full; free some space, then writes continue automatically", .path.display())]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// The database cannot be written or opened for lack of permission.
    #[error("cannot write the journal {}: it is read-only ({source}); check the owner and the mount of its directory", .path.display())]
    ReadOnly {
        /// The database.
        path: PathBuf,
        /// The error of SQLite.
        source: Arc<sqlx::Error>,
    },
    /// The database is damaged.
    #[error("cannot read the journal {}: it is corrupt ({detail}); stop the daemon and restore a copy, or keep the readable tasks with `artel journal repair`", .path.display())]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// The damage and where it is.
        detail: Damage,
    },
    /// Another program held the database for too long, or all read connections are in use; nothing was written.
    #[error("cannot access the journal {}: it is busy ({source}); end other programs that have it open and try again", .path.display())]
    Busy {
        /// The database.
        path: PathBuf,
        /// The error of SQLite or of the connection pool.
        source: Arc<sqlx::Error>,
    },
    /// Any other failure of SQLite or the disk.
    #[error("cannot access the journal {}: {source}; check the disk and the system's log", .path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// The error of SQLite.
        source: Arc<sqlx::Error>,
    },
    /// The database could not be written anew without what was erased.
    #[error("cannot remove erased text from the files of the journal {}: {source}; it takes as much free space as the journal, in its directory and in that of temporary files (SQLITE_TMPDIR)", .path.display())]
    Purge {
        /// The database.
        path: PathBuf,
        /// The error of SQLite.
        source: Arc<sqlx::Error>,
    },
    /// Another program reads the log, so that it cannot be emptied.
    #[error("cannot remove erased text from the log of the journal {}: another program reads it; end that program and erase again", .path.display())]
    LogInUse {
        /// The database.
        path: PathBuf,
    },
    /// An earlier write failed, so nothing more is written until the journal is opened again.
    #[error("the journal {} takes no more writes since an earlier failure: {cause}; fix the cause and restart the daemon", .path.display())]
    Failed {
        /// The database.
        path: PathBuf,
        /// The first failure.
        cause: Arc<Error>,
    },
    /// The writer panicked: a bug. Nothing more is written until the journal is opened again.
    #[error("the writer of the journal {} panicked: {message}", .path.display())]
    Panicked {
        /// The database.
        path: PathBuf,
        /// The message of the panic.
        message: String,
    },
    /// The journal is closed.
    #[error("the journal {} is closed", .path.display())]
    Closed {
        /// The database.
        path: PathBuf,
    },
    /// The task is not in the journal.
    #[error("the journal has no task {task}; it may have been deleted by retention")]
    NoTask {
        /// The requested task.
        task: TaskId,
    },
    /// The event is not the next one of its task; another writer of the same task was faster.
    #[error("cannot append event {} to task {task}: event {} is next; read its events again", .found.0, .expected.0)]
    UnexpectedSeq {
        /// The task of the event.
        task: TaskId,
        /// The next sequence number of the task.
        expected: Seq,
        /// The sequence number of the event.
        found: Seq,
    },
    /// The task has its last event.
    #[error("cannot append to task {task}: it has ended; submit a new task")]
    Ended {
        /// The task that has ended.
        task: TaskId,
    },
    /// The task has no last event, and only ended ones are erased.
    #[error("cannot erase task {task}: it has not ended; cancel it first")]
    Unfinished {
        /// The task that runs, or could run again.
        task: TaskId,
    },
    /// The request id belongs to a task with another request.
    #[error("request id `{}` belongs to task {task}, which has another input, graph, role, priority or other labels; choose a new id", .request.as_str())]
    RequestReused {
        /// The request id of the client.
        request: RequestId,
        /// The task that has it.
        task: TaskId,
    },
    /// The event cannot be stored, or not at this position. A fault of the caller.
    #[error("cannot store event {} of task {task}: {reason}", .seq.0)]
    Unstorable {
        /// The task of the event.
        task: TaskId,
        /// The sequence number of the event.
        seq: Seq,
        /// Why it cannot be stored.
        reason: UnstorableReason,
    },
}

/// Why an event cannot be stored, or not at this position.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum UnstorableReason {
    /// Its time in milliseconds since 1970 does not fit into the database.
    #[error("its time of {0} ms is out of range")]
    Time(u64),
    /// It has no encoding.
    #[error("{0}")]
    Encoding(Arc<dyn StdError + Send + Sync>),
    /// Its values are nested too deeply.
    #[error("it is nested too deeply")]
    Nesting,
    /// What would be stored is not an event.
    #[error("it cannot be read back: {0}")]
    Unreadable(Arc<serde_json::Error>),
    /// What would be stored is another event: it has a value that JSON lacks.
    #[error("it would be read back differently")]
    Altered,
    /// It is the first event and of another kind than `accepted`.
    #[error("the first event of a task must be `accepted`")]
    NotAccepted,
    /// It is `accepted`, and not the first event.
    #[error("`accepted` can only be the first event of a task")]
    AcceptedAgain,
    /// It is submitted with a new task, and belongs to another one or ends this one.
    #[error("a task starts with its own events, and not with its last one")]
    Start,
    /// It is appended together with an event of another task.
    #[error("one append has events of several tasks")]
    SeveralTasks,
}

impl Error {
    /// Whether SQLite reports a failed write without its cause.
    pub(crate) fn is_failed_write(&self) -> bool {
        matches!(self, Self::Database { source, .. } if result_code(source) == Some(IOERR_WRITE_CODE))
    }

    /// Classifies an error of SQLite by its remedy.
    pub(crate) fn database(path: &Path, source: sqlx::Error) -> Self {
        let path = path.to_owned();
        // The low byte of an extended code is the primary code.
        match result_code(&source).map(|code| code & 0xff) {
            Some(FULL_CODE) => Self::Full { path },
            Some(PERM_CODE | READONLY_CODE | CANTOPEN_CODE | AUTH_CODE) => {
                Self::ReadOnly { path, source: source.into() }
            }
            Some(CORRUPT_CODE | NOTADB_CODE) => Self::Corrupt { path, detail: Damage::Database(source.into()) },
            Some(BUSY_CODE | LOCKED_CODE) => Self::Busy { path, source: source.into() },
            _ => match source {
                sqlx::Error::PoolTimedOut => Self::Busy { path, source: source.into() },
                sqlx::Error::PoolClosed => Self::Closed { path },
                source => Self::Database { path, source: source.into() },
            },
        }
    }
}

// The primary result codes of SQLite, https://sqlite.org/rescode.html
const PERM_CODE: u32 = 3;
const BUSY_CODE: u32 = 5;
const LOCKED_CODE: u32 = 6;
const READONLY_CODE: u32 = 8;
const CORRUPT_CODE: u32 = 11;
const FULL_CODE: u32 = 13;
const CANTOPEN_CODE: u32 = 14;
const AUTH_CODE: u32 = 23;
const NOTADB_CODE: u32 = 26;
/// An extended result code.
const IOERR_WRITE_CODE: u32 = 778;

/// The extended result code, which sqlx gives as text.
fn result_code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error()?.code()?.parse().ok()
}

//! The hook around commits: tests inject faults with it, and without one it costs a branch.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use sqlx::error::{DatabaseError, ErrorKind};
use tokio::sync::oneshot;

/// What a journal calls around each of its commits, which are counted from 1 since it was opened. The first may be one of
/// retention.
///
/// Calls never overlap. Each is on a thread of its own and is awaited: a hook may block as a disk does that hangs, kill the
/// process, or panic, which is a panic of the writer.
pub trait CommitHook: Debug + Send + Sync {
    /// All rows are written, none is committed.
    ///
    /// # Errors
    /// The commit fails so, and is rolled back.
    fn before(&self, _commit: u64) -> Result<(), InjectedFault> {
        Ok(())
    }

    /// The commit is on disk, and no caller has its answer yet.
    ///
    /// # Errors
    /// The commit seems to fail so, but its rows are found when the journal is opened again.
    fn after(&self, _commit: u64) -> Result<(), InjectedFault> {
        Ok(())
    }
}

/// A failure of a commit, as SQLite reports it. It takes the way of a real one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("injected fault (code: {code})")]
pub struct InjectedFault {
    /// The result code of SQLite, which may be an extended one.
    pub code: u32,
}

impl InjectedFault {
    /// The disk is full.
    pub const DISK_FULL: Self = Self { code: 13 };
    /// The disk does not take a write.
    pub const WRITE_FAILED: Self = Self { code: 778 };
    /// The disk does not confirm a write.
    pub const SYNC_FAILED: Self = Self { code: 1034 };
    /// The database is damaged.
    pub const DAMAGED: Self = Self { code: 11 };
    /// The database must not be written.
    pub const READ_ONLY: Self = Self { code: 8 };
}

impl DatabaseError for InjectedFault {
    fn message(&self) -> &str {
        "injected fault"
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        Some(self.code.to_string().into())
    }

    fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

/// The commits since the journal was opened, with the hook that may watch them.
#[derive(Debug)]
pub(crate) struct CommitCounter {
    hook: Option<Arc<dyn CommitHook>>,
    count: u64,
}

impl CommitCounter {
    pub(crate) fn new(hook: Option<Arc<dyn CommitHook>>) -> Self {
        Self { hook, count: 0 }
    }

    /// Counts a commit that is about to happen.
    pub(crate) async fn before(&mut self) -> sqlx::Result<()> {
        self.count += 1;
        let Self { hook: Some(hook), count: commit } = self else { return Ok(()) };
        let commit = *commit;
        call(hook.clone(), move |hook| hook.before(commit)).await
    }

    /// The counted commit has happened.
    pub(crate) async fn after(&self) -> sqlx::Result<()> {
        let Self { hook: Some(hook), count: commit } = self else { return Ok(()) };
        let commit = *commit;
        call(hook.clone(), move |hook| hook.after(commit)).await
    }
}

/// Calls a hook as a statement of SQLite runs: on another thread, which neither blocks the runtime nor is waited for when it
/// shuts down.
async fn call(
    hook: Arc<dyn CommitHook>,
    side: impl FnOnce(&dyn CommitHook) -> Result<(), InjectedFault> + Send + 'static,
) -> sqlx::Result<()> {
    let (result_tx, result) = oneshot::channel();
    std::thread::spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| side(&*hook)));
        // The writer may be gone, with its runtime.
        drop(result_tx.send(outcome));
    });
    match result.await.expect("the thread sends its outcome, a panic too") {
        Ok(outcome) => outcome.map_err(sqlx::Error::from),
        Err(panic) => resume_unwind(panic),
    }
}

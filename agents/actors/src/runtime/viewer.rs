//! Whose tasks a caller sees, and whose it may change.

use artel_journal::Erasure;
use artel_task::{CallerName, TaskId};

use super::{Error, Runtime};
use artel_admission::CallerQuota;

/// A caller, and what it may do with the tasks of others. Its own it sees and changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// The caller.
    pub caller: CallerName,
    /// Whether it sees the tasks of all callers.
    pub sees_all: bool,
    /// Whether it may change those of all callers that it sees. To answer what a task asks is no change.
    pub controls_all: bool,
    /// How much its own tasks may take.
    pub quota: CallerQuota,
}

impl Viewer {
    /// The user whose daemon it is.
    pub fn owner() -> Self {
        Self { caller: CallerName::owner(), sees_all: true, controls_all: true, quota: CallerQuota::default() }
    }

    /// The caller whose tasks alone it sees; `None` if it sees all.
    pub fn only(&self) -> Option<&CallerName> {
        if self.sees_all { None } else { Some(&self.caller) }
    }
}

impl Runtime {
    /// Checks that a caller may see a task. To a caller that may not, it is as if there were no such task: the error is the same, and
    /// so is the time until it comes.
    ///
    /// # Errors
    /// [`Error::NoTask`], and the errors of the journal. A caller that sees all is told of a missing task by what it does next.
    pub async fn check_visible(&self, viewer: &Viewer, task: TaskId) -> Result<(), Error> {
        let is_visible = viewer.sees_all || self.shared.journal.is_owned(task, &viewer.caller).await?;
        if is_visible { Ok(()) } else { Err(Error::NoTask(task)) }
    }

    /// Checks that a caller may change a task.
    ///
    /// # Errors
    /// [`Error::NoTask`] as in [`check_visible`](Self::check_visible); [`Error::NotPermitted`] if it sees the task of another caller
    /// and may not change it; the errors of the journal.
    pub async fn check_controlled(&self, viewer: &Viewer, task: TaskId) -> Result<(), Error> {
        self.check_visible(viewer, task).await?;
        if viewer.controls_all || self.shared.journal.is_owned(task, &viewer.caller).await? {
            return Ok(());
        }
        let is_missing = self.shared.journal.summary(task).await?.is_none();
        Err(if is_missing { Error::NoTask(task) } else { Error::NotPermitted })
    }

    /// Checks that a caller may erase this, and that there is something to erase: feedback and ratings may be there
    /// longer than their task.
    ///
    /// # Errors
    /// Those of [`check_controlled`](Self::check_controlled).
    pub async fn check_erasure(&self, viewer: &Viewer, erasure: &Erasure) -> Result<(), Error> {
        let task = match erasure {
            Erasure::Owner { name, .. } if viewer.controls_all || *name == viewer.caller => return Ok(()),
            Erasure::Owner { .. } => return Err(Error::NotPermitted),
            Erasure::Task(task) => *task,
        };
        let controlled = self.check_controlled(viewer, task).await;
        let is_missing = match &controlled {
            Ok(()) => self.shared.journal.summary(task).await?.is_none(),
            Err(Error::NoTask(_)) => true,
            Err(_) => false,
        };
        if !is_missing {
            return controlled;
        }
        let own = if viewer.controls_all { viewer.only() } else { Some(&viewer.caller) };
        let (feedback, ratings) = (self.options.feedback.clone(), self.options.ratings.clone());
        let own = own.cloned();
        let has_task = move || {
            feedback.is_some_and(|feedback| feedback.has_task(own.as_ref(), task))
                || ratings.is_some_and(|ratings| ratings.has_task(own.as_ref(), task))
        };
        match tokio::task::spawn_blocking(has_task).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::NoTask(task)),
            Err(_) => Err(Error::Stopped),
        }
    }
}

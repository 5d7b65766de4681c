//! Erasing the text of tasks: in the journal, in the feedback, in engines, and in their caches on disk.
//!
//! What is to be erased is on disk before anything is. A daemon that ends in the middle completes it at its next start, before it
//! resumes tasks.

use std::collections::BTreeSet;
use std::time::Duration;

use artel_engine::{Error as EngineError, disk_prefix_cache};
use artel_hosting::engine_host;
use artel_journal::Erasure;
use artel_task::TaskId;
use artel_task::event::{ERASED_TEXT, Timestamp};
use ractor::call;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::resume::TaskStanding;
use super::{Error, Runtime};
use crate::supervisor::Message;

/// Time for the work of a cancelled task to end: it is not waited for by the cancellation, and an engine may compute a batch of it.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for an engine to forget: it computes a batch before, and then deletes files.
const FORGET_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a task is cancelled that is on disk and does not run yet, because it was submitted just now.
const MAX_CANCEL_ATTEMPTS: u32 = 40;
/// The delay between two attempts: longer than it takes to start a task.
const CANCEL_DELAY: Duration = Duration::from_millis(50);

/// What an erase has removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EraseReport {
    /// Tasks whose text is erased.
    pub tasks: u64,
    /// Those of them that ran, or waited, and were cancelled for it.
    pub cancelled: u64,
    /// Records of feedback.
    pub feedback: u64,
    /// Files of the prefix cache that may have had their text.
    pub prefix_files: u64,
    /// Copies of damaged journals that may have had their text.
    pub backups: u64,
}

/// Whether tasks may run while they are erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ErasePhase {
    /// None has been resumed.
    BeforeResume,
    Running,
}

impl Runtime {
    /// Erases the text of tasks beyond recovery from the files of the daemon, and leaves their figures. Tasks that have not ended are
    /// cancelled first. It is completed even if the caller stops waiting, or the daemon ends meanwhile.
    ///
    /// # Errors
    /// [`Error::EraseIncomplete`] and the errors of the journal: then the text may be left somewhere, until it is erased again or the
    /// daemon is started again. [`Error::Suspended`] if a task could not be cancelled; [`Error::ShuttingDown`].
    pub async fn erase(&self, erasures: Vec<Erasure>) -> Result<EraseReport, Error> {
        self.check_open()?;
        let this = self.clone();
        let erased = self.submissions.spawn(async move {
            let _one_at_a_time = this.erase_lock.lock().await;
            this.shared.journal.begin_erasures(erasures).await?;
            this.erase_pending(ErasePhase::Running).await
        });
        erased.await.map_err(|_| Error::Stopped)?
    }

    /// Completes the erases that an earlier run of the daemon did not, before tasks are resumed. What cannot be completed now is tried
    /// again with the next erase, and at the next start.
    pub(super) async fn complete_erasures(&self) {
        match self.erase_pending(ErasePhase::BeforeResume).await {
            Ok(report) if report == EraseReport::default() => {}
            Ok(report) => tracing::info!(?report, "completed what an earlier run did not erase"),
            Err(error) => tracing::error!(%error, "failed to complete what an earlier run did not erase"),
        }
    }

    async fn erase_pending(&self, phase: ErasePhase) -> Result<EraseReport, Error> {
        let journal = &self.shared.journal;
        let erasures = journal.erasures().await?;
        if erasures.is_empty() {
            return Ok(EraseReport::default());
        }
        let mut tasks = BTreeSet::new();
        for erasure in &erasures {
            tasks.extend(journal.tasks_to_erase(erasure).await?);
        }
        let tasks: Vec<TaskId> = tasks.into_iter().collect();
        let mut report = EraseReport::default();
        for task in &tasks {
            report.cancelled += u64::from(self.end_for_erase(*task, phase).await?);
        }
        report.tasks = journal.erase(&tasks).await?;
        self.shared.response_cache.clear();
        // Before, to count them, and after: an engine may have written one meanwhile.
        report.prefix_files = self.remove_prefix_files().await?;
        self.forget_in_engines().await?;
        report.prefix_files += self.remove_prefix_files().await?;
        let report = self.erase_files(erasures, report).await?;
        journal.purge().await?;
        journal.end_erasures().await?;
        tracing::info!(?report, "erased the text of tasks");
        Ok(report)
    }

    /// Cancels a task that has not ended, and waits until none of its work is left. Whether it had not.
    async fn end_for_erase(&self, task: TaskId, phase: ErasePhase) -> Result<bool, Error> {
        // Before it is cancelled, so that its end is not missed.
        let live = self.shared.channels.subscribe(task, false);
        let mut attempts = 0;
        loop {
            match self.standing(task).await {
                Ok(TaskStanding::Open | TaskStanding::SetAside(_)) => {}
                // What cannot be read is deleted, whether it has ended or not.
                Ok(TaskStanding::Ended | TaskStanding::Damaged(_)) | Err(Error::NoTask(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
            let cancelled = match phase {
                ErasePhase::BeforeResume => self.cancel_unrun(task, ERASED_TEXT).await,
                ErasePhase::Running => self.cancel(task, ERASED_TEXT).await,
            };
            attempts += 1;
            match cancelled {
                Ok(()) => break,
                Err(Error::Suspended(_)) if attempts < MAX_CANCEL_ATTEMPTS => tokio::time::sleep(CANCEL_DELAY).await,
                Err(error) => return Err(error),
            }
        }
        if let Some(mut live) = live.map(|subscription| subscription.live) {
            // The channel is closed when the runner and all steps have let go of it.
            let closed = async { while !matches!(live.recv().await, Err(RecvError::Closed)) {} };
            timeout(STOP_TIMEOUT, closed).await.map_err(|_| {
                Error::EraseIncomplete(format!(
                    "steps of task {task} still run {STOP_TIMEOUT:?} after it was cancelled"
                ))
            })?;
        }
        Ok(true)
    }

    /// Has every engine that is ready forget the texts of callers. One that is not has none.
    async fn forget_in_engines(&self) -> Result<(), Error> {
        let hosts = call!(self.supervisor, Message::EngineHosts).map_err(|_| Error::Stopped)?;
        let forget = hosts.into_iter().map(|host| async move {
            let Ok(Some(engine)) = call!(host, engine_host::Message::Engine) else { return Ok(()) };
            match timeout(FORGET_TIMEOUT, engine.forget_text()).await {
                Ok(Ok(()) | Err(EngineError::Ended(_))) => Ok(()),
                Ok(Err(error)) => Err(Error::EraseIncomplete(error.to_string())),
                Err(_) => Err(Error::EraseIncomplete(format!("an engine did not answer within {FORGET_TIMEOUT:?}"))),
            }
        });
        futures::future::try_join_all(forget).await.map(drop)
    }

    /// Deletes the files of the prefix cache that may have the text of a caller.
    async fn remove_prefix_files(&self) -> Result<u64, Error> {
        let Some(dir) = self.options.prefix_cache_dir.clone() else { return Ok(0) };
        let removed = tokio::task::spawn_blocking(move || disk_prefix_cache::remove_text(&dir)).await;
        let removed = removed.map_err(|error| Error::EraseIncomplete(error.to_string()))?;
        removed.map_err(|error| Error::EraseIncomplete(format!("failed to delete prefix files: {error}")))
    }

    /// Removes the text from the other files beside the journal's.
    async fn erase_files(&self, erasures: Vec<Erasure>, report: EraseReport) -> Result<EraseReport, Error> {
        let (options, journal) = (self.options.clone(), self.shared.journal.clone());
        let erased = tokio::task::spawn_blocking(move || {
            let feedback = match &options.feedback {
                Some(feedback) => {
                    feedback.erase(&erasures).map_err(|error| Error::EraseIncomplete(error.to_string()))?
                }
                None => 0,
            };
            let since = erasures.iter().map(Erasure::since).min().unwrap_or(Timestamp(0));
            let backups = journal.remove_backups(since)?;
            Ok(EraseReport { feedback, backups, ..report })
        });
        erased.await.map_err(|error| Error::EraseIncomplete(error.to_string()))?
    }
}

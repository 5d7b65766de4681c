//! Erasing the text of tasks: in the journal, in the feedback and the ratings, in engines, and in their caches on disk.
//!
//! What is to be erased is on disk before anything is. A daemon that ends in the middle completes it at its next start, before it
//! resumes tasks.

use std::collections::BTreeSet;
use std::time::Duration;

use artel_engine::disk_prefix_cache;
use artel_hosting::engine_host;
use artel_journal::Erasure;
use artel_task::TaskId;
use artel_task::event::{ERASED_TEXT, Timestamp};
use ractor::call;
use tokio::time::timeout;

use super::resume::TaskStanding;
use super::{Error, Runtime};
use crate::supervisor::Message;

/// Time for the work of a cancelled task to end: it is not waited for by the cancellation, and an engine may compute a batch of it.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for an engine to forget, or to end: it computes a batch before, and then writes or deletes files.
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
    /// Ratings of answers.
    pub ratings: u64,
    /// Files of the prefix cache that may have had their text.
    pub prefix_files: u64,
    /// Texts that were handed in to a knowledge.
    pub texts: u64,
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

/// How a task to erase has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TaskEnding {
    /// By itself, before.
    Earlier,
    /// For the erase.
    Cancelled,
    /// It cannot be read, or is not there.
    Unreadable,
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
        let mut report = EraseReport::default();
        // What fails keeps nothing else from being erased: the erases stay begun, and are tried again as a whole.
        let (mut at_rest, mut ended, mut failures) = (Vec::new(), Vec::new(), Vec::new());
        for task in tasks {
            match self.end_for_erase(task, phase).await {
                Ok(TaskEnding::Unreadable) => at_rest.push(task),
                Ok(ending) => {
                    report.cancelled += u64::from(ending == TaskEnding::Cancelled);
                    ended.push(self.wait_until_at_rest(task));
                }
                Err(error) => failures.push(error),
            }
        }
        for waited in futures::future::join_all(ended).await {
            match waited {
                Ok(task) => at_rest.push(task),
                Err(error) => failures.push(error),
            }
        }
        report.tasks = journal.erase(&at_rest).await?;
        self.shared.response_cache.clear();
        // Before engines are told: one that forgets after this writes what is new, and any other nothing.
        match self.erase_prefix_files().await {
            Ok(files) => report.prefix_files = files,
            Err(error) => failures.push(error),
        }
        failures.extend(self.forget_in_engines().await?);
        match self.erase_files(erasures.clone(), report).await {
            Ok(complete) => report = complete,
            Err(error) => failures.push(error),
        }
        match self.erase_texts(&erasures).await {
            Ok(texts) => report.texts = texts,
            Err(error) => failures.push(error),
        }
        journal.purge().await?;
        if let Some(error) = joined(failures) {
            return Err(error);
        }
        journal.end_erasures().await?;
        tracing::info!(?report, "erased the text of tasks");
        Ok(report)
    }

    /// Cancels a task that has not ended. Its work may not have ended then.
    async fn end_for_erase(&self, task: TaskId, phase: ErasePhase) -> Result<TaskEnding, Error> {
        let mut attempts = 0;
        loop {
            match self.standing(task).await {
                Ok(TaskStanding::Open | TaskStanding::SetAside(_)) => {}
                Ok(TaskStanding::Ended) => return Ok(TaskEnding::Earlier),
                // What cannot be read is deleted, whether it has ended or not.
                Ok(TaskStanding::Damaged(_)) | Err(Error::NoTask(_)) => return Ok(TaskEnding::Unreadable),
                Err(error) => return Err(error),
            }
            let cancelled = match phase {
                ErasePhase::BeforeResume => self.cancel_unrun(task, ERASED_TEXT).await,
                ErasePhase::Running => self.cancel(task, ERASED_TEXT).await,
            };
            attempts += 1;
            match cancelled {
                Ok(()) => return Ok(TaskEnding::Cancelled),
                Err(Error::Suspended(_)) if attempts < MAX_CANCEL_ATTEMPTS => tokio::time::sleep(CANCEL_DELAY).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until no work is left of a task that has ended: its end is on disk before that of its steps.
    async fn wait_until_at_rest(&self, task: TaskId) -> Result<TaskId, Error> {
        match timeout(STOP_TIMEOUT, self.shared.channels.released(task)).await {
            Ok(()) => Ok(task),
            Err(_) => {
                let reason = format!("steps of task {task} still run {STOP_TIMEOUT:?} after it has ended");
                Err(Error::EraseIncomplete(reason))
            }
        }
    }

    /// Has every engine that is ready, or is being unloaded, forget the texts of callers; one that is not has none. Returns the
    /// failures.
    async fn forget_in_engines(&self) -> Result<Vec<Error>, Error> {
        let hosts = call!(self.supervisor, Message::EngineHosts).map_err(|_| Error::Stopped)?;
        let forget = hosts.into_iter().map(|host| async move {
            let Ok(Some(engine)) = call!(host, engine_host::Message::Engine) else { return None };
            match timeout(FORGET_TIMEOUT, engine.forget_text()).await {
                Ok(forgotten) => forgotten.err().map(|error| Error::EraseIncomplete(error.to_string())),
                Err(_) => {
                    let reason = format!("an engine has neither forgotten nor ended within {FORGET_TIMEOUT:?}");
                    Some(Error::EraseIncomplete(reason))
                }
            }
        });
        Ok(futures::future::join_all(forget).await.into_iter().flatten().collect())
    }

    /// Deletes the files of the prefix cache that may have the text of a caller.
    async fn erase_prefix_files(&self) -> Result<u64, Error> {
        let Some(dir) = self.options.prefix_cache_dir.clone() else { return Ok(0) };
        let removed = tokio::task::spawn_blocking(move || disk_prefix_cache::erase_text(&dir)).await;
        let removed = removed.map_err(|error| Error::EraseIncomplete(error.to_string()))?;
        removed.map_err(|error| Error::EraseIncomplete(format!("failed to delete prefix files: {error}")))
    }

    /// Erases the texts that callers handed in to a knowledge.
    async fn erase_texts(&self, erasures: &[Erasure]) -> Result<u64, Error> {
        let Some(retrieval) = &self.shared.retrieval else { return Ok(0) };
        let (catalog, mut erased) = (self.catalog(), 0);
        for erasure in erasures {
            let Erasure::Owner { name, .. } = erasure else { continue };
            let texts = retrieval.erase(&catalog, name).await;
            erased += texts.map_err(|error| Error::EraseIncomplete(error.to_string()))?;
        }
        Ok(erased)
    }

    /// Removes the text from the other files beside the journal's.
    async fn erase_files(&self, erasures: Vec<Erasure>, report: EraseReport) -> Result<EraseReport, Error> {
        let (options, journal) = (self.options.clone(), self.shared.journal.clone());
        let erased = tokio::task::spawn_blocking(move || {
            let incomplete = |error: artel_feedback::Error| Error::EraseIncomplete(error.to_string());
            let feedback = options.feedback.as_ref().map_or(Ok(0), |feedback| feedback.erase(&erasures));
            let ratings = options.ratings.as_ref().map_or(Ok(0), |ratings| ratings.erase(&erasures));
            let (feedback, ratings) = (feedback.map_err(incomplete)?, ratings.map_err(incomplete)?);
            let since = erasures.iter().map(Erasure::since).min().unwrap_or(Timestamp(0));
            let backups = journal.remove_backups(since)?;
            Ok(EraseReport { feedback, ratings, backups, ..report })
        });
        erased.await.map_err(|error| Error::EraseIncomplete(error.to_string()))?
    }
}

/// One error for several.
fn joined(mut errors: Vec<Error>) -> Option<Error> {
    let first = errors.drain(..errors.len().min(1)).next()?;
    match errors.len() {
        0 => Some(first),
        more => Some(Error::EraseIncomplete(format!("{first}; there are {more} failures more"))),
    }
}

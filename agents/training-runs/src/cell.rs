//! A run in memory: its record, how far it is, its files, and how it is stopped.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use artel_task::TaskId;
use artel_task::event::Timestamp;
use artel_trainer::{EVENTS_FILE, EventTail, HELD_OUT_FILE, SETTINGS_FILE, TRAIN_FILE, TrainerEvent};
use tokio::sync::{SetOnce, watch};

use crate::check::{ADAPTER_DIR, ADAPTER_FILE};
use crate::error::{FileFailure, RunFailure};
use crate::progress::RunProgress;
use crate::record::{RECORD_FILE, RunRecord, RunState};

/// What has the texts of samples.
const SAMPLE_FILES: [&str; 2] = [TRAIN_FILE, HELD_OUT_FILE];
/// What stays in the directory of a run without an adapter: what it was, and its curve.
const KEPT_FILES: [&str; 3] = [RECORD_FILE, SETTINGS_FILE, EVENTS_FILE];
/// What stays beside it of a run with one.
const KEPT_OF_ADAPTER: [&str; 2] = [ADAPTER_FILE, ADAPTER_DIR];

/// A run as it is at a moment. Clones are cheap.
#[derive(Debug, Clone)]
pub struct RunView {
    /// What is kept of it.
    pub record: Arc<RunRecord>,
    /// How far its training is.
    pub progress: Arc<RunProgress>,
    /// Why it does nothing now and tries again by itself, if so.
    pub waiting: Option<Arc<str>>,
}

/// Why a run is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    Asked,
    Erased,
}

impl From<StopReason> for RunFailure {
    fn from(reason: StopReason) -> Self {
        match reason {
            StopReason::Asked => Self::Stopped,
            StopReason::Erased => Self::Erased,
        }
    }
}

/// A run.
#[derive(Debug)]
pub(crate) struct RunCell {
    dir: PathBuf,
    view: watch::Sender<RunView>,
    pub(crate) stop: SetOnce<StopReason>,
    /// Held while files of the run are written or removed, by threads that may block. Nothing is written any more for a run that is to
    /// stop, so that what is removed with this held stays away.
    files: Mutex<()>,
}

impl RunCell {
    pub(crate) fn new(dir: PathBuf, record: RunRecord) -> Self {
        let view = RunView { record: Arc::new(record), progress: Arc::default(), waiting: None };
        Self { dir, view: watch::Sender::new(view), stop: SetOnce::new(), files: Mutex::default() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn view(&self) -> RunView {
        self.view.borrow().clone()
    }

    pub(crate) fn record(&self) -> Arc<RunRecord> {
        self.view.borrow().record.clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<RunView> {
        self.view.subscribe()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.view.borrow().record.state.is_over()
    }

    /// Takes in what the trainer said.
    pub(crate) fn apply(&self, event: TrainerEvent) {
        self.view.send_modify(|view| Arc::make_mut(&mut view.progress).apply(event));
    }

    /// Takes in all that trainers have said. Blocks on the disk.
    pub(crate) fn read_events(&self) {
        let mut tail = EventTail::new(&self.dir, 0);
        loop {
            match tail.read_next() {
                Ok(Some(tailed)) => self.apply(tailed.event),
                Ok(None) => return,
                Err(error) => return tracing::warn!(%error, "failed to read what a trainer said"),
            }
        }
    }

    /// Says why the run waits.
    pub(crate) fn wait_for(&self, reason: Option<&str>) {
        self.view.send_modify(|view| view.waiting = reason.map(Arc::from));
    }

    /// Writes files of the run in a thread that may block, unless it is to stop. It runs to its end even if the future is dropped.
    pub(crate) async fn write_files<T: Send + 'static>(
        self: &Arc<Self>,
        write: impl FnOnce(&Path) -> Result<T, RunFailure> + Send + 'static,
    ) -> Result<T, RunFailure> {
        let this = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            let _files = this.lock_files();
            match this.stop.get() {
                Some(reason) => Err((*reason).into()),
                None => write(&this.dir),
            }
        });
        written.await.map_err(|_| RunFailure::Internal)?
    }

    /// Changes the record, on disk first.
    pub(crate) async fn save(
        self: &Arc<Self>,
        change: impl FnOnce(&mut RunRecord) + Send + 'static,
    ) -> Result<(), RunFailure> {
        let this = self.clone();
        self.write_files(move |dir| {
            let mut record = RunRecord::clone(&this.record());
            change(&mut record);
            record.write(dir).map_err(RunFailure::file("write the record of the run in", dir))?;
            this.replace(record);
            Ok(())
        })
        .await
    }

    /// Ends the run: it is told, and what it does not need any more is removed. Blocks on the disk.
    pub(crate) fn end(&self, outcome: Result<(), RunFailure>, ended: Timestamp) {
        let _files = self.lock_files();
        // It may be stopped since it came to its end.
        let outcome = self.stop.get().map_or(outcome, |reason| Err((*reason).into()));
        let mut record = RunRecord::clone(&self.record());
        record.state = match &outcome {
            Ok(()) => RunState::Succeeded,
            Err(RunFailure::Stopped | RunFailure::Erased) => RunState::Stopped,
            Err(_) => RunState::Failed,
        };
        (record.ended, record.error) = (Some(ended), outcome.err().map(|failure| failure.to_string()));
        if record.state != RunState::Succeeded {
            record.adapter = None;
        }
        match &record.error {
            None => tracing::info!(run = %record.id, "a training run has succeeded"),
            Some(error) => tracing::warn!(run = %record.id, error, "a training run has ended without an adapter"),
        }
        // What is removed may be needed until the record says otherwise; on a full disk, there is place for the record afterwards.
        let written = record.write(&self.dir);
        log_failure(self.remove_unneeded(record.state));
        if let Err(error) = written.or_else(|_| record.write(&self.dir)) {
            tracing::error!(run = %record.id, %error, "failed to write the end of a training run; the next daemon goes on with it");
        }
        self.wait_for(None);
        self.replace(record);
    }

    /// Takes note that ratings were erased: of the tasks that it learned from, `kept` has those with ratings. A run that goes on is
    /// stopped. Texts of what was erased are gone when this returns. Blocks on the disk.
    pub(crate) fn note_erased(&self, kept: &HashSet<TaskId>) -> Result<(), FileFailure> {
        let is_erased = |record: &RunRecord| record.data.rated_tasks.iter().any(|task| !kept.contains(task));
        if !is_erased(&self.record()) {
            return Ok(());
        }
        if !self.is_over() {
            // It may be stopped already, for another reason.
            let _ = self.stop.set(StopReason::Erased);
        }
        let _files = self.lock_files();
        let mut record = RunRecord::clone(&self.record());
        if !record.state.is_over() {
            // The rest goes when its trainer has ended.
            for path in SAMPLE_FILES.map(|name| self.dir.join(name)) {
                fs::remove_file(&path).or_else(ignore_missing).map_err(FileFailure::of(&path))?;
            }
        }
        if record.error.is_some() && record.state == RunState::Failed {
            // Both may quote a sample.
            record.error = Some(RunFailure::Forgotten.to_string());
            let events = self.dir.join(EVENTS_FILE);
            fs::remove_file(&events).or_else(ignore_missing).map_err(FileFailure::of(&events))?;
        }
        let learned_from = record.data.rated_tasks.len();
        record.data.rated_tasks.retain(|task| kept.contains(task));
        record.data.erased += (learned_from - record.data.rated_tasks.len()) as u64;
        record.write(&self.dir).map_err(FileFailure::of(&self.dir))?;
        self.replace(record);
        Ok(())
    }

    /// Removes what a run that is over does not need: the texts of samples, and checkpoints. Blocks on the disk.
    pub(crate) fn tidy(&self) {
        let _files = self.lock_files();
        log_failure(self.remove_unneeded(self.record().state));
    }

    fn remove_unneeded(&self, state: RunState) -> Result<(), FileFailure> {
        let of_adapter: &[&str] = if state == RunState::Succeeded { &KEPT_OF_ADAPTER } else { &[] };
        self.remove_files(&KEPT_FILES, of_adapter)
    }

    /// Removes all that can be removed, and tells of the first failure.
    fn remove_files(&self, kept: &[&str], also_kept: &[&str]) -> Result<(), FileFailure> {
        let is_kept =
            |path: &Path| path.file_name().is_some_and(|name| kept.iter().chain(also_kept).any(|kept| name == *kept));
        let entries = fs::read_dir(&self.dir).map_err(FileFailure::of(&self.dir))?;
        let mut outcome = Ok(());
        for entry in entries {
            let path = entry.map_err(FileFailure::of(&self.dir))?.path();
            if is_kept(&path) {
                continue;
            }
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            outcome = outcome.and(removed.or_else(ignore_missing).map_err(FileFailure::of(&path)));
        }
        outcome
    }

    fn replace(&self, record: RunRecord) {
        self.view.send_modify(|view| view.record = Arc::new(record));
    }

    fn lock_files(&self) -> MutexGuard<'_, ()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// What is left is removed when the daemon starts again.
fn log_failure(removed: Result<(), FileFailure>) {
    if let Err(FileFailure { path, source }) = removed {
        tracing::error!(path = %path.display(), error = %source, "failed to remove a file of a training run");
    }
}

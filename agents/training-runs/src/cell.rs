//! A run in memory: its record, how far it is, and how it is stopped.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use artel_task::TaskId;
use artel_trainer::TrainerEvent;
use tokio::sync::{SetOnce, watch};

use crate::error::RunFailure;
use crate::progress::RunProgress;
use crate::record::{RunRecord, RunState};

/// What stays in the directory of a run without an adapter: what it was, and its curve.
const KEPT_FILES: [&str; 3] = ["run.json", "settings.json", "events.jsonl"];
/// What stays beside it of a run with one.
const KEPT_OF_ADAPTER: [&str; 2] = [crate::check::ADAPTER_FILE, crate::check::ADAPTER_DIR];

/// A run as it is at a moment. Clones are cheap.
#[derive(Debug, Clone)]
pub struct RunView {
    /// What is kept of it.
    pub record: Arc<RunRecord>,
    /// How far its training is.
    pub progress: Arc<RunProgress>,
}

/// Why a run is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    Asked,
    Erased,
}

/// A run.
#[derive(Debug)]
pub(crate) struct RunCell {
    pub(crate) dir: PathBuf,
    view: watch::Sender<RunView>,
    pub(crate) stop: SetOnce<StopReason>,
    /// Held while the record is replaced.
    writing: Mutex<()>,
}

impl RunCell {
    pub(crate) fn new(dir: PathBuf, record: RunRecord) -> Self {
        let view = RunView { record: Arc::new(record), progress: Arc::default() };
        Self { dir, view: watch::Sender::new(view), stop: SetOnce::new(), writing: Mutex::default() }
    }

    pub(crate) fn view(&self) -> RunView {
        self.view.borrow().clone()
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

    /// Changes the record, on disk first. Blocks on the disk.
    pub(crate) fn change(&self, change: impl FnOnce(&mut RunRecord)) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = RunRecord::clone(&self.view.borrow().record);
        change(&mut record);
        record.write(&self.dir)?;
        self.view.send_modify(|view| view.record = Arc::new(record));
        Ok(())
    }

    /// As [`Self::change`], for what is told even if the disk refuses: the run is then in this state until the daemon ends.
    pub(crate) fn change_anyway(&self, change: impl Fn(&mut RunRecord)) {
        if let Err(error) = self.change(&change) {
            tracing::error!(run = %self.view.borrow().record.id, %error, "failed to write the record of a training run");
            self.view.send_modify(|view| change(Arc::make_mut(&mut view.record)));
        }
    }

    /// As [`Self::change`], in a thread that may block.
    pub(crate) async fn save(
        self: &Arc<Self>,
        change: impl FnOnce(&mut RunRecord) + Send + 'static,
    ) -> Result<(), RunFailure> {
        let this = self.clone();
        let saved = tokio::task::spawn_blocking(move || {
            this.change(change).map_err(RunFailure::file("write the record of the run in", &this.dir))
        });
        saved.await.map_err(|_| RunFailure::Internal)?
    }

    /// Takes note that ratings were erased: of those that it learned from, `is_kept` says which are there. A run that goes on is stopped,
    /// and its samples are gone when this returns. Blocks on the disk.
    pub(crate) fn note_erased(&self, is_kept: impl Fn(TaskId) -> bool) {
        let record = self.view().record;
        let kept: Vec<TaskId> = record.data.rated_tasks.iter().copied().filter(|task| is_kept(*task)).collect();
        let erased = (record.data.rated_tasks.len() - kept.len()) as u64;
        if erased == 0 {
            return;
        }
        if !record.state.is_over() {
            // It may be stopped already, for another reason.
            let _ = self.stop.set(StopReason::Erased);
            self.remove_files(&KEPT_FILES, &[]);
        }
        self.change_anyway(|record| {
            record.data.rated_tasks.clone_from(&kept);
            record.data.erased += erased;
        });
    }

    /// Removes what the run does not need any more: the texts of samples, and checkpoints. Blocks on the disk.
    pub(crate) fn tidy(&self, state: RunState) {
        let of_adapter: &[&str] = if state == RunState::Succeeded { &KEPT_OF_ADAPTER } else { &[] };
        self.remove_files(&KEPT_FILES, of_adapter);
    }

    fn remove_files(&self, kept: &[&str], also_kept: &[&str]) {
        let is_kept =
            |path: &Path| path.file_name().is_some_and(|name| kept.iter().chain(also_kept).any(|kept| name == *kept));
        let paths = fs::read_dir(&self.dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        for path in paths.filter(|path| !is_kept(path)) {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed.or_else(ignore_missing) {
                tracing::error!(path = %path.display(), %error, "failed to remove a file of a training run");
            }
        }
    }
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

//! All runs of a daemon.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use artel_feedback::RatingStore;
use artel_task::TrainingName;
use artel_task::event::Timestamp;
use artel_trainer::{Environment, EnvironmentState, EventTail};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cell::{RunCell, RunView, StopReason};
use crate::check::{ADAPTER_DIR, ADAPTER_FILE};
use crate::error::Error;
use crate::host::TrainingHost;
use crate::job::Job;
use crate::prepare::RunPlan;
use crate::record::{RunRecord, RunState};
use crate::run_id::RunId;

/// Runs of one training that are kept: the oldest that are over are deleted when another one begins.
const MAX_KEPT_RUNS: usize = 50;

/// Where runs are, and what they may take.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory of runs.
    pub dir: PathBuf,
    /// The environment of the trainer.
    pub environment: Environment,
    /// The threads that a trainer may use on the CPU.
    pub threads: u32,
}

/// The runs of a daemon. Clones refer to the same ones.
#[derive(Clone)]
pub struct TrainingRuns(Arc<Shared>);

struct Shared {
    options: Options,
    host: Arc<dyn TrainingHost>,
    runs: Mutex<BTreeMap<RunId, Arc<RunCell>>>,
    jobs: TaskTracker,
    closing: CancellationToken,
}

impl TrainingRuns {
    /// Reads the runs in a directory, and goes on with the one that is not over. Ratings that are erased from this store are marked in
    /// the runs that learned from them. Blocks on the disk; needs a runtime.
    ///
    /// # Errors
    /// The directory cannot be made or read. A run of which the record cannot be read is left out and logged.
    pub fn open(options: Options, ratings: &RatingStore, host: Arc<dyn TrainingHost>) -> io::Result<Self> {
        fs::create_dir_all(&options.dir)?;
        let mut runs = BTreeMap::new();
        for entry in fs::read_dir(&options.dir)? {
            let path = entry?.path();
            let Some(id) = path.file_name().and_then(|name| RunId::parse(name.to_str()?)) else { continue };
            match RunRecord::read(&path) {
                Ok(record) if record.id == id => drop(runs.insert(id, Arc::new(RunCell::new(path, record)))),
                Ok(record) => {
                    tracing::error!(path = %path.display(), id = %record.id, "a training run lies in the directory of another")
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "failed to read a training run; it is left as it is")
                }
            }
        }
        let shared = Shared {
            options,
            host,
            runs: Mutex::new(runs),
            jobs: TaskTracker::new(),
            closing: CancellationToken::new(),
        };
        let this = Self(Arc::new(shared));
        this.note_erased(ratings);
        let (weak, store) = (Arc::downgrade(&this.0), ratings.clone());
        ratings.on_erase(move || {
            if let Some(shared) = weak.upgrade() {
                Self(shared).note_erased(&store);
            }
        });
        for cell in this.cells() {
            match cell.is_over() {
                true => read_events(&cell),
                false => this.spawn(cell, None),
            }
        }
        Ok(this)
    }

    /// The environment of the trainer.
    pub fn environment(&self) -> &Environment {
        &self.0.options.environment
    }

    /// Starts a run.
    ///
    /// # Errors
    /// [`Error::NoTrainer`], [`Error::Busy`], [`Error::Data`], [`Error::Setting`], [`Error::File`], [`Error::Closing`].
    pub async fn start(&self, plan: RunPlan) -> Result<RunView, Error> {
        self.check_trainer().await?;
        plan.check_samples()?;
        let settings = plan.settings(self.0.options.threads)?;
        let this = self.clone();
        let started = tokio::task::spawn_blocking(move || {
            let names = (plan.training.name.clone(), plan.role.name.clone(), plan.model.clone());
            let mut runs = this.runs();
            if let Some(cell) = runs.values().find(|cell| !cell.is_over()) {
                return Err(Error::Busy(cell.view().record.id.clone()));
            }
            let number = runs.keys().map(RunId::number).max().unwrap_or(0) + 1;
            let id = RunId::new(&names.0, number);
            let dir = this.0.options.dir.join(id.as_str());
            let record = RunRecord::new(id.clone(), names, plan.model_file.clone(), settings, now());
            fs::create_dir(&dir).and_then(|()| record.write(&dir)).map_err(Error::file(&dir))?;
            remove_oldest(&mut runs, &record.training);
            let cell = Arc::new(RunCell::new(dir, record));
            runs.insert(id, cell.clone());
            Ok((cell, plan))
        });
        let (cell, plan) = started.await.map_err(|_| Error::Closing)??;
        let view = cell.view();
        self.spawn(cell, Some(plan));
        Ok(view)
    }

    /// Whether a run could be started.
    async fn check_trainer(&self) -> Result<(), Error> {
        if self.0.closing.is_cancelled() {
            return Err(Error::Closing);
        }
        let reason = match self.0.options.environment.inspect().await {
            EnvironmentState::Ready(_) | EnvironmentState::Outdated { needs_packages: false } => return Ok(()),
            EnvironmentState::Missing => "the trainer is not installed".to_owned(),
            EnvironmentState::Incomplete { reason } => format!("the trainer is not whole: {reason}"),
            EnvironmentState::Outdated { .. } => "the trainer is that of another version".to_owned(),
        };
        Err(Error::NoTrainer(reason))
    }

    fn spawn(&self, cell: Arc<RunCell>, plan: Option<RunPlan>) {
        let (host, environment) = (self.0.host.clone(), self.0.options.environment.clone());
        let job = Job { cell, host, environment, closing: self.0.closing.clone() };
        self.0.jobs.spawn(job.run(plan));
    }

    /// The runs of a training, or all, the newest first.
    pub fn list(&self, training: Option<&str>) -> Vec<RunView> {
        let views = self.cells().into_iter().map(|cell| cell.view());
        let mut views: Vec<RunView> =
            views.filter(|view| training.is_none_or(|name| view.record.training.as_str() == name)).collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.record.id.number()));
        views
    }

    /// A run.
    ///
    /// # Errors
    /// [`Error::NoRun`].
    pub fn get(&self, id: &str) -> Result<RunView, Error> {
        Ok(self.cell(id)?.view())
    }

    /// A run as it changes. Its sender lasts as long as the run is kept.
    ///
    /// # Errors
    /// [`Error::NoRun`].
    pub fn watch(&self, id: &str) -> Result<watch::Receiver<RunView>, Error> {
        Ok(self.cell(id)?.subscribe())
    }

    /// Ends a run for good, and returns it when it has ended.
    ///
    /// # Errors
    /// [`Error::NoRun`], [`Error::Closing`].
    pub async fn stop(&self, id: &str) -> Result<RunView, Error> {
        let cell = self.cell(id)?;
        if !cell.is_over() {
            // Another reason may be first.
            let _ = cell.stop.set(StopReason::Asked);
        }
        let mut views = cell.subscribe();
        let ended = views.wait_for(|view| view.record.state.is_over());
        let ended = self.0.closing.run_until_cancelled(ended).await;
        ended.and_then(Result::ok).map(|view| view.clone()).ok_or(Error::Closing)
    }

    /// Deletes a run that is over. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::NoRun`], [`Error::Unended`], [`Error::File`].
    pub fn delete(&self, id: &str) -> Result<(), Error> {
        let cell = self.cell(id)?;
        let id = cell.view().record.id.clone();
        if !cell.is_over() {
            return Err(Error::Unended(id));
        }
        fs::remove_dir_all(&cell.dir).map_err(Error::file(&cell.dir))?;
        self.runs().remove(&id);
        Ok(())
    }

    /// The GGUF of a run's adapter.
    ///
    /// # Errors
    /// [`Error::NoRun`], [`Error::NoAdapter`].
    pub fn adapter(&self, id: &str) -> Result<PathBuf, Error> {
        Ok(self.adapter_cell(id)?.dir.join(ADAPTER_FILE))
    }

    /// The directory of a run's adapter in PEFT's form.
    ///
    /// # Errors
    /// [`Error::NoRun`], [`Error::NoAdapter`].
    pub fn peft_adapter(&self, id: &str) -> Result<PathBuf, Error> {
        Ok(self.adapter_cell(id)?.dir.join(ADAPTER_DIR))
    }

    /// Ends the work on runs: a trainer saves a checkpoint and ends. The next daemon goes on.
    pub async fn close(&self) {
        self.0.closing.cancel();
        self.0.jobs.close();
        self.0.jobs.wait().await;
    }

    fn adapter_cell(&self, id: &str) -> Result<Arc<RunCell>, Error> {
        let cell = self.cell(id)?;
        let record = cell.view().record;
        match record.state {
            RunState::Succeeded => Ok(cell),
            _ => Err(Error::NoAdapter(record.id.clone())),
        }
    }

    /// Marks the runs that learned from ratings that are gone.
    fn note_erased(&self, ratings: &RatingStore) {
        for cell in self.cells() {
            cell.note_erased(|task| ratings.has_task(None, task));
        }
    }

    fn cell(&self, id: &str) -> Result<Arc<RunCell>, Error> {
        let cell = RunId::parse(id).and_then(|id| self.runs().get(&id).cloned());
        cell.ok_or_else(|| Error::NoRun(id.chars().take(80).collect()))
    }

    fn cells(&self) -> Vec<Arc<RunCell>> {
        self.runs().values().cloned().collect()
    }

    fn runs(&self) -> MutexGuard<'_, BTreeMap<RunId, Arc<RunCell>>> {
        self.0.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for TrainingRuns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainingRuns").field("options", &self.0.options).finish_non_exhaustive()
    }
}

/// The curve of a run that is over.
fn read_events(cell: &RunCell) {
    let mut tail = EventTail::new(&cell.dir, 0);
    loop {
        match tail.read_next() {
            Ok(Some(tailed)) => cell.apply(tailed.event),
            Ok(None) => return,
            Err(error) => return tracing::warn!(%error, "failed to read what a trainer said"),
        }
    }
}

/// Deletes the oldest runs of a training that are over, if there are too many.
fn remove_oldest(runs: &mut BTreeMap<RunId, Arc<RunCell>>, training: &TrainingName) {
    let of_training = runs.iter().filter(|(_, cell)| cell.view().record.training == *training);
    let mut ids: Vec<RunId> = of_training.map(|(id, _)| id.clone()).collect();
    ids.sort_by_key(RunId::number);
    let surplus = (ids.len() + 1).saturating_sub(MAX_KEPT_RUNS);
    for id in ids.into_iter().take(surplus) {
        let Some(cell) = runs.remove(&id) else { continue };
        if let Err(error) = fs::remove_dir_all(&cell.dir) {
            tracing::error!(run = %id, %error, "failed to delete an old training run");
        }
    }
}

/// The time, as records have it.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

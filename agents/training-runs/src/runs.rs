//! All runs of a daemon.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use artel_feedback::RatingStore;
use artel_task::TrainingName;
use artel_trainer::{Environment, EnvironmentState, ReadyEnvironment, SetupError, SetupProgress};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cell::{RunCell, RunView, StopReason};
use crate::check::{ADAPTER_DIR, ADAPTER_FILE};
use crate::error::{Error, FileFailure};
use crate::host::TrainingHost;
use crate::job::RunJob;
use crate::prepare::RunPlan;
use crate::record::{RunRecord, RunState, now};
use crate::run_dir;
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
pub struct TrainingRuns(Arc<SharedRuns>);

struct SharedRuns {
    options: Options,
    host: Arc<dyn TrainingHost>,
    ratings: RatingStore,
    runs: Mutex<BTreeMap<RunId, Arc<RunCell>>>,
    /// Held while a run is made, so that one is at a time.
    starting: Arc<tokio::sync::Mutex<()>>,
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
        let runs = run_dir::open_all(&options.dir)?;
        let shared = SharedRuns {
            options,
            host,
            ratings: ratings.clone(),
            runs: Mutex::new(runs),
            starting: Arc::default(),
            jobs: TaskTracker::new(),
            closing: CancellationToken::new(),
        };
        let this = Self(Arc::new(shared));
        if let Err(FileFailure { path, source }) = this.note_erased() {
            return Err(io::Error::new(source.kind(), format!("{}: {source}", path.display())));
        }
        let weak = Arc::downgrade(&this.0);
        ratings.on_erase(move || match weak.upgrade() {
            Some(shared) => Self(shared)
                .note_erased()
                .map_err(|FileFailure { path, source }| artel_feedback::Error::File { path, source }),
            None => Ok(()),
        });
        let (over, unended): (Vec<_>, Vec<_>) = this.cells().into_iter().partition(|cell| cell.is_over());
        unended.into_iter().for_each(|cell| this.spawn(cell, None));
        // A run's curve may have been told in some megabytes.
        this.0.jobs.spawn_blocking({
            let closing = this.0.closing.clone();
            move || {
                for cell in over.iter().rev().take_while(|_| !closing.is_cancelled()) {
                    cell.tidy();
                    cell.read_events();
                }
            }
        });
        Ok(this)
    }

    /// The environment of the trainer.
    pub fn environment(&self) -> &Environment {
        &self.0.options.environment
    }

    /// Makes the environment of the trainer ready, as [`Environment::setup`] does. It is cancelled when the daemon ends.
    ///
    /// # Errors
    /// Those of [`Environment::setup`].
    pub async fn set_up(&self, progress: impl Fn(SetupProgress) + Send + Sync) -> Result<ReadyEnvironment, SetupError> {
        self.0.options.environment.setup(progress, &self.0.closing).await
    }

    /// Starts a run, and returns it before its samples are turned into tokens.
    ///
    /// # Errors
    /// [`Error::NoTrainer`], [`Error::Busy`], [`Error::Data`], [`Error::Setting`], [`Error::Base`], [`Error::Space`], [`Error::File`],
    /// [`Error::Closing`].
    pub async fn start(&self, plan: RunPlan) -> Result<RunView, Error> {
        self.check_trainer().await?;
        plan.check_samples()?;
        let settings = plan.settings(self.0.options.threads)?;
        let (this, starting) = (self.clone(), self.0.starting.clone().lock_owned().await);
        // To its end even if the caller has gone: a run that is made is worked on.
        let started = tokio::task::spawn_blocking(move || {
            let _starting = starting;
            plan.check_model(&this.0.options.dir)?;
            if let Some(cell) = this.cells().iter().find(|cell| !cell.is_over()) {
                return Err(Error::Busy(cell.record().id.clone()));
            }
            if this.0.closing.is_cancelled() {
                return Err(Error::Closing);
            }
            this.remove_oldest(&plan.training.name);
            let number = run_dir::next_number(&this.0.options.dir)?;
            let id = RunId::new(&plan.training.name, number);
            let record = RunRecord::new(id.clone(), &plan, settings, now());
            let dir = run_dir::create(&this.0.options.dir, &record)?;
            let cell = Arc::new(RunCell::new(dir, record));
            this.runs().insert(id, cell.clone());
            let view = cell.view();
            this.spawn(cell, Some(plan));
            // What was erased since the ratings were read was told to no run.
            this.note_erased().map_err(|FileFailure { path, source }| Error::File { path, source })?;
            Ok(view)
        });
        started.await.map_err(|_| Error::Closing)?
    }

    /// Whether a run could be started.
    async fn check_trainer(&self) -> Result<(), Error> {
        if self.0.closing.is_cancelled() {
            return Err(Error::Closing);
        }
        let environment = &self.0.options.environment;
        let reason = match environment.inspect().await {
            EnvironmentState::Ready(_) | EnvironmentState::Outdated { needs_packages: false } => return Ok(()),
            EnvironmentState::Missing => "the trainer is not installed".to_owned(),
            EnvironmentState::Incomplete { reason } => format!("the trainer cannot train: {reason}"),
            EnvironmentState::Outdated { .. } => "the trainer is that of another version".to_owned(),
        };
        // An interpreter that was made elsewhere is its owner's to mend.
        let is_own = environment.options().existing.is_none();
        Err(Error::NoTrainer(if is_own { format!("{reason}; run `artel train setup`") } else { reason }))
    }

    fn spawn(&self, cell: Arc<RunCell>, plan: Option<RunPlan>) {
        let SharedRuns { host, options, closing, jobs, .. } = &*self.0;
        jobs.spawn(RunJob::new(cell, host.clone(), options.environment.clone(), closing.clone(), plan).run());
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

    /// Deletes a run that is over.
    ///
    /// # Errors
    /// [`Error::NoRun`], [`Error::Unended`], [`Error::File`].
    pub async fn delete(&self, id: &str) -> Result<(), Error> {
        let cell = self.cell(id)?;
        if !cell.is_over() {
            return Err(Error::Unended(cell.record().id.clone()));
        }
        let this = self.clone();
        let deleted = tokio::task::spawn_blocking(move || this.remove(&cell));
        deleted.await.map_err(|_| Error::Closing)?
    }

    /// The GGUF of a run's adapter.
    ///
    /// # Errors
    /// [`Error::NoRun`], [`Error::NoAdapter`].
    pub fn adapter(&self, id: &str) -> Result<PathBuf, Error> {
        Ok(self.adapter_cell(id)?.dir().join(ADAPTER_FILE))
    }

    /// The directory of a run's adapter in PEFT's form.
    ///
    /// # Errors
    /// [`Error::NoRun`], [`Error::NoAdapter`].
    pub fn peft_adapter(&self, id: &str) -> Result<PathBuf, Error> {
        Ok(self.adapter_cell(id)?.dir().join(ADAPTER_DIR))
    }

    /// Ends the work on runs: a trainer saves a checkpoint and ends. The next daemon goes on.
    pub async fn close(&self) {
        self.0.closing.cancel();
        self.0.jobs.close();
        self.0.jobs.wait().await;
    }

    fn adapter_cell(&self, id: &str) -> Result<Arc<RunCell>, Error> {
        let cell = self.cell(id)?;
        let record = cell.record();
        match record.state {
            RunState::Succeeded => Ok(cell),
            _ => Err(Error::NoAdapter(record.id.clone())),
        }
    }

    /// Marks the runs that learned from ratings that are gone: all of them, even if one fails.
    fn note_erased(&self) -> Result<(), FileFailure> {
        let cells = self.cells();
        if cells.iter().all(|cell| cell.record().data.rated_tasks.is_empty()) {
            return Ok(());
        }
        let kept = self.0.ratings.tasks();
        cells.iter().map(|cell| cell.note_erased(&kept)).fold(Ok(()), Result::and)
    }

    /// Deletes the oldest runs of a training, if there are too many. Blocks on the disk.
    fn remove_oldest(&self, training: &TrainingName) {
        let mut cells = self.cells();
        cells.retain(|cell| cell.record().training == *training);
        cells.sort_by_key(|cell| cell.record().id.number());
        let surplus = (cells.len() + 1).saturating_sub(MAX_KEPT_RUNS);
        for cell in &cells[..surplus] {
            if let Err(error) = self.remove(cell) {
                tracing::error!(run = %cell.record().id, %error, "failed to delete an old training run");
            }
        }
    }

    /// Deletes a run that is over. Blocks on the disk.
    fn remove(&self, cell: &RunCell) -> Result<(), Error> {
        run_dir::remove(cell.dir())?;
        self.runs().remove(&cell.record().id);
        Ok(())
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

//! The work of a run, from its samples to its adapter.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use artel_trainer::{
    Environment, EnvironmentState, FailureKind, Interpreter, TrainerFailure, TrainerOutcome, TrainerProcess,
};
use futures::StreamExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cell::RunCell;
use crate::check;
use crate::error::RunFailure;
use crate::host::TrainingHost;
use crate::prepare::RunPlan;
use crate::record::{RunRecord, RunState, now};
use crate::run_data::RunData;

/// How often a trainer may end without a checkpoint that is further than the one before.
const MAX_FRUITLESS_STARTS: u32 = 3;
/// The pause before a trainer is started again.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// The first pause after a fault that may pass; each further one is twice as long.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The longest such pause.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(300);
/// The time for a trainer to save a checkpoint when the daemon ends. One takes a second, behind a step, which may take some.
const PAUSE_GRACE: Duration = Duration::from_secs(10);

/// The work of a run. States: as [`RunState`]. It ends when the run is over, or the daemon is.
pub(crate) struct RunJob {
    cell: Arc<RunCell>,
    host: Arc<dyn TrainingHost>,
    environment: Environment,
    closing: CancellationToken,
    /// What the run does; none if it was begun by a daemon before this one.
    plan: Option<Arc<RunPlan>>,
    /// Where its trainer's events are read on.
    offset_bytes: u64,
}

/// Why work on a run ends before it is complete.
enum RunInterruption {
    /// The daemon ends; the run goes on with the next one.
    Closing,
    Failure(RunFailure),
}

impl<E: Into<RunFailure>> From<E> for RunInterruption {
    fn from(failure: E) -> Self {
        Self::Failure(failure.into())
    }
}

impl RunJob {
    pub(crate) fn new(
        cell: Arc<RunCell>,
        host: Arc<dyn TrainingHost>,
        environment: Environment,
        closing: CancellationToken,
        plan: Option<RunPlan>,
    ) -> Self {
        Self { cell, host, environment, closing, plan: plan.map(Arc::new), offset_bytes: 0 }
    }

    /// Works until the run is over.
    pub(crate) async fn run(mut self) {
        let outcome = match self.complete().await {
            Ok(()) => Ok(()),
            Err(RunInterruption::Failure(failure)) => Err(failure),
            Err(RunInterruption::Closing) => return,
        };
        let cell = self.cell.clone();
        // It has logged what failed.
        let _ = tokio::task::spawn_blocking(move || cell.end(outcome, now())).await;
    }

    /// Works until the run is complete, and tries again what failed for a reason that may pass.
    async fn complete(&mut self) -> Result<(), RunInterruption> {
        if self.plan.is_none() {
            self.resume().await?;
        }
        let mut delay = FIRST_RETRY_DELAY;
        loop {
            let begun = Instant::now();
            let failure = match self.proceed().await {
                Err(RunInterruption::Failure(failure)) if failure.is_passing() => failure.to_string(),
                outcome => return outcome,
            };
            if begun.elapsed() > MAX_RETRY_DELAY {
                delay = FIRST_RETRY_DELAY;
            }
            tracing::warn!(run = %self.record().id, failure, delay = delay.as_secs(), "a training run waits, and tries again");
            self.cell.wait_for(Some(&failure));
            self.unless_ended(pause(delay)).await?;
            self.cell.wait_for(None);
            delay = (delay * 2).min(MAX_RETRY_DELAY);
        }
    }

    /// Takes up a run that a daemon before this one has begun.
    async fn resume(&self) -> Result<(), RunInterruption> {
        let cell = self.cell.clone();
        match self.record().state {
            RunState::Preparing => return Err(RunFailure::Interrupted.into()),
            // Those of a training are read while it goes on.
            RunState::Checking => {
                let read = tokio::task::spawn_blocking(move || cell.read_events());
                read.await.map_err(|_| RunFailure::Internal)?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn proceed(&mut self) -> Result<(), RunInterruption> {
        if self.record().state == RunState::Preparing {
            self.prepare().await?;
        }
        if self.record().state == RunState::Training {
            if self.plan.is_none() {
                self.check_model().await?;
            }
            self.train().await?;
            let progress = self.cell.view().progress;
            let (before, after) = (progress.loss_before, Some(progress.loss_after.ok_or(RunFailure::Diverged)?));
            let enter = move |record: &mut RunRecord| {
                (record.losses.before, record.losses.after) = (before, after);
                record.state = RunState::Checking;
            };
            self.cell.save(enter).await?;
        }
        self.check().await
    }

    async fn prepare(&self) -> Result<(), RunInterruption> {
        let plan = self.plan.clone().ok_or(RunFailure::Interrupted)?;
        let base_sha256 = self.unless_ended(sha256(&plan.model_file)).await?;
        let prepared = self.unless_ended(plan.prepare(self.host.clone())).await?;
        let settings = self.record().settings.clone();
        let written = self.cell.write_files(move |dir| prepared.write(&settings, dir)).await?;
        let enter = move |record: &mut RunRecord| {
            // These are as they were when it was started, or as an erase has left them.
            let RunData { rated_tasks, erased, .. } = std::mem::take(&mut record.data);
            record.data = RunData { rated_tasks, erased, base_sha256, ..written };
            record.state = RunState::Training;
        };
        Ok(self.cell.save(enter).await?)
    }

    async fn check(&self) -> Result<(), RunInterruption> {
        self.check_model().await?;
        let record = self.record();
        let model_file = record.model_file.clone();
        let adapter = self.cell.write_files(move |dir| check::convert(dir, &model_file)).await?;
        let measuring = check::measure(&self.host, self.cell.dir(), &record.model_file, record.losses);
        let losses = self.unless_ended(measuring).await?;
        Ok(self.cell.save(move |record| (record.adapter, record.losses) = (Some(adapter), losses)).await?)
    }

    /// Whether the model is the one whose tokens the samples have.
    async fn check_model(&self) -> Result<(), RunInterruption> {
        let record = self.record();
        let found = self.unless_ended(sha256(&record.model_file)).await?;
        if found == record.data.base_sha256 {
            return Ok(());
        }
        Err(RunFailure::ModelChanged(record.model_file.clone()).into())
    }

    /// Has a trainer train, and another one go on where one was killed.
    async fn train(&mut self) -> Result<(), RunInterruption> {
        let mut fruitless_starts = 0;
        loop {
            let checkpoint = self.cell.view().progress.checkpoint;
            let interpreter = self.unless_ended(self.interpreter()).await?;
            let reason = match self.follow(TrainerProcess::start(interpreter, self.cell.dir())?).await? {
                TrainerOutcome::Finished { .. } => return Ok(()),
                TrainerOutcome::Failed(failure) => return Err(self.trainer_failure(failure).into()),
                outcome => outcome.to_string(),
            };
            tracing::warn!(run = %self.record().id, reason, "a trainer ended before it was done");
            let reached = self.cell.view().progress.checkpoint;
            fruitless_starts = if reached > checkpoint { 0 } else { fruitless_starts + 1 };
            if fruitless_starts == MAX_FRUITLESS_STARTS {
                let has_checkpoint = reached > 0;
                return Err(RunFailure::Stuck { times: fruitless_starts, reason, has_checkpoint }.into());
            }
            self.unless_ended(pause(RESTART_DELAY)).await?;
        }
    }

    /// Takes in what a trainer says, until it has ended. It has ended in any case when this returns.
    async fn follow(&mut self, process: TrainerProcess) -> Result<TrainerOutcome, RunInterruption> {
        tracing::info!(run = %self.record().id, pid = process.id(), "a trainer has started");
        let mut events = pin!(process.events(self.offset_bytes));
        loop {
            tokio::select! {
                biased;
                reason = self.cell.stop.wait() => {
                    process.stop(Duration::ZERO).await;
                    return Err(RunFailure::from(*reason).into());
                }
                () = self.closing.cancelled() => {
                    process.stop(PAUSE_GRACE).await;
                    return Err(RunInterruption::Closing);
                }
                event = events.next() => match event {
                    Some(Ok(tailed)) => {
                        self.offset_bytes = tailed.next_offset_bytes;
                        self.cell.apply(tailed.event);
                    }
                    Some(Err(error)) => {
                        process.stop(Duration::ZERO).await;
                        return Err(RunFailure::Events(error).into());
                    }
                    None => return Ok(process.ended().await),
                },
            }
        }
    }

    fn trainer_failure(&self, failure: TrainerFailure) -> RunFailure {
        // What has taken some steps fits this machine, when it does little else.
        let has_fitted = failure.kind == FailureKind::Memory && self.cell.view().progress.checkpoint > 0;
        let is_passing = has_fitted || failure.is_passing();
        let at = failure.origin.map(|origin| format!("{origin}: ")).unwrap_or_default();
        RunFailure::Trainer { message: format!("{at}{}", failure.message), is_passing }
    }

    /// The interpreter of the trainer. Where the daemon alone is newer, its source is written first.
    async fn interpreter(&self) -> Result<Interpreter, RunFailure> {
        if let EnvironmentState::Outdated { needs_packages: false } = self.environment.inspect().await {
            self.environment.setup(|_| {}, &CancellationToken::new()).await?;
        }
        Ok(self.environment.interpreter().await?)
    }

    /// Waits for work that loses nothing when it is dropped: unless the run is to stop, or the daemon ends.
    async fn unless_ended<T>(&self, work: impl Future<Output = Result<T, RunFailure>>) -> Result<T, RunInterruption> {
        tokio::select! {
            biased;
            reason = self.cell.stop.wait() => Err(RunFailure::from(*reason).into()),
            () = self.closing.cancelled() => Err(RunInterruption::Closing),
            done = work => Ok(done?),
        }
    }

    fn record(&self) -> Arc<RunRecord> {
        self.cell.record()
    }
}

async fn pause(delay: Duration) -> Result<(), RunFailure> {
    tokio::time::sleep(delay).await;
    Ok(())
}

/// The SHA-256 of a model's file. The reading goes on to its end when this is dropped.
async fn sha256(path: &Path) -> Result<String, RunFailure> {
    let path = path.to_owned();
    let hashed = tokio::task::spawn_blocking(move || {
        artel_files::sha256(std::slice::from_ref(&path)).map_err(RunFailure::file("read", &path))
    });
    hashed.await.map_err(|_| RunFailure::Internal)?
}

//! The work of a run, from its samples to its adapter.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use artel_trainer::{Environment, EnvironmentState, Interpreter, TrainerOutcome, TrainerProcess};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::cell::{RunCell, StopReason};
use crate::check;
use crate::error::RunFailure;
use crate::host::TrainingHost;
use crate::prepare::RunPlan;
use crate::record::{RunRecord, RunState};
use crate::runs::now;

/// How often a trainer may end without a checkpoint that is further than the one before.
const MAX_FRUITLESS_STARTS: u32 = 3;
/// The pause before a trainer is started again.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// The time for a trainer to save a checkpoint when the daemon ends. One takes a second, behind a step, which may take some.
const PAUSE_GRACE: Duration = Duration::from_secs(10);

/// The work of a run. States: as [`RunState`]. It ends when the run is over, or the daemon is.
pub(crate) struct Job {
    pub(crate) cell: Arc<RunCell>,
    pub(crate) host: Arc<dyn TrainingHost>,
    pub(crate) environment: Environment,
    pub(crate) closing: CancellationToken,
}

/// How far a job has come.
#[derive(Debug, PartialEq, Eq)]
enum JobEnd {
    Complete,
    /// The daemon ends; the run goes on with the next one.
    Interrupted,
}

impl Job {
    /// Works until the run is over. Without a plan, it was begun by a daemon before this one.
    pub(crate) async fn run(self, plan: Option<RunPlan>) {
        let outcome = tokio::select! {
            biased;
            reason = self.cell.stop.wait() => Err(match reason {
                StopReason::Asked => RunFailure::Stopped,
                StopReason::Erased => RunFailure::Erased,
            }),
            outcome = self.proceed(plan) => outcome,
        };
        let run = self.cell.view().record.id.clone();
        let (state, error) = match outcome {
            Ok(JobEnd::Interrupted) => return,
            Ok(JobEnd::Complete) => (RunState::Succeeded, None),
            Err(RunFailure::Stopped) => (RunState::Stopped, Some(RunFailure::Stopped.to_string())),
            Err(failure) => (RunState::Failed, Some(failure.to_string())),
        };
        match &error {
            None => tracing::info!(%run, "a training run has succeeded"),
            Some(error) => tracing::warn!(%run, error, "a training run has ended without an adapter"),
        }
        let cell = self.cell.clone();
        let ended = tokio::task::spawn_blocking(move || {
            cell.tidy(state);
            cell.change_anyway(|record| {
                record.state = state;
                record.ended = Some(now());
                record.error.clone_from(&error);
                if state != RunState::Succeeded {
                    record.adapter = None;
                }
            });
        });
        // It has logged what failed.
        let _ = ended.await;
    }

    async fn proceed(&self, plan: Option<RunPlan>) -> Result<JobEnd, RunFailure> {
        if self.record().state == RunState::Preparing {
            let plan = plan.ok_or(RunFailure::Interrupted)?;
            let data = plan.write(self.record().settings.clone(), &self.host, &self.cell.dir);
            let Some(data) = self.unless_closing(data).await? else { return Ok(JobEnd::Interrupted) };
            let enter = move |record: &mut RunRecord| (record.data, record.state) = (data, RunState::Training);
            self.cell.save(enter).await?;
        }
        if self.record().state == RunState::Training {
            if self.train().await? == JobEnd::Interrupted {
                return Ok(JobEnd::Interrupted);
            }
            let progress = self.cell.view().progress;
            let (before, after) = (progress.loss_before, Some(progress.loss_after.ok_or(RunFailure::Diverged)?));
            let enter = move |record: &mut RunRecord| {
                (record.losses.before, record.losses.after) = (before, after);
                record.state = RunState::Checking;
            };
            self.cell.save(enter).await?;
        }
        let checked = self.unless_closing(self.check()).await?;
        Ok(checked.map_or(JobEnd::Interrupted, |()| JobEnd::Complete))
    }

    async fn check(&self) -> Result<(), RunFailure> {
        let (record, dir): (_, &PathBuf) = (self.record(), &self.cell.dir);
        let adapter = check::convert(dir, &record.model_file).await?;
        let losses = check::measure(&self.host, dir, &record.model_file, record.losses).await?;
        self.cell.save(move |record| (record.adapter, record.losses) = (Some(adapter), losses)).await
    }

    /// Has a trainer train, and another one go on where one was killed.
    async fn train(&self) -> Result<JobEnd, RunFailure> {
        let (mut offset_bytes, mut fruitless_starts) = (0, 0);
        loop {
            let checkpoint = self.cell.view().progress.checkpoint;
            let process = TrainerProcess::start(self.interpreter().await?, &self.cell.dir)?;
            tracing::info!(run = %self.record().id, pid = process.id(), checkpoint, "a trainer has started");
            let mut events = pin!(process.events(offset_bytes));
            let outcome = loop {
                tokio::select! {
                    () = self.closing.cancelled() => {
                        process.stop(PAUSE_GRACE).await;
                        return Ok(JobEnd::Interrupted);
                    }
                    event = events.next() => match event {
                        Some(Ok(tailed)) => {
                            offset_bytes = tailed.next_offset_bytes;
                            self.cell.apply(tailed.event);
                        }
                        Some(Err(error)) => return Err(RunFailure::Trainer(format!("failed to {error}"))),
                        None => break process.ended().await,
                    },
                }
            };
            match outcome {
                TrainerOutcome::Finished { .. } => return Ok(JobEnd::Complete),
                TrainerOutcome::Failed(failure) => {
                    let at = failure.origin.map(|origin| format!("{origin}: ")).unwrap_or_default();
                    return Err(RunFailure::Trainer(format!("{at}{}", failure.message)));
                }
                outcome => {
                    let is_further = self.cell.view().progress.checkpoint > checkpoint;
                    fruitless_starts = if is_further { 0 } else { fruitless_starts + 1 };
                    let reason = outcome.to_string();
                    tracing::warn!(run = %self.record().id, reason, "a trainer ended before it was done");
                    if fruitless_starts == MAX_FRUITLESS_STARTS {
                        return Err(RunFailure::Stuck { times: fruitless_starts, reason });
                    }
                }
            }
            if self.unless_closing(async { Ok(tokio::time::sleep(RESTART_DELAY).await) }).await?.is_none() {
                return Ok(JobEnd::Interrupted);
            }
        }
    }

    /// The interpreter of the trainer. Where the daemon alone is newer, its source is written first.
    async fn interpreter(&self) -> Result<Interpreter, RunFailure> {
        if let EnvironmentState::Outdated { needs_packages: false } = self.environment.inspect().await {
            self.environment.setup(|_| {}, &self.closing).await?;
        }
        Ok(self.environment.interpreter().await?)
    }

    async fn unless_closing<T>(
        &self,
        work: impl Future<Output = Result<T, RunFailure>>,
    ) -> Result<Option<T>, RunFailure> {
        self.closing.run_until_cancelled(work).await.transpose()
    }

    fn record(&self) -> Arc<RunRecord> {
        self.cell.view().record
    }
}

//! A run as a message.

use std::path::Path;

use artel_proto::v1;
use artel_trainer::{RunSettings, TrainerTargets};
use artel_training_runs::{
    AdapterFile, HeldOutLosses, LossPoint, RunData, RunForecast, RunProgress, RunRecord, RunState, RunView,
    TrainingStep,
};

use crate::state::ServiceState;
use crate::value::{duration, timestamp};

/// How much a message tells of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunDetail {
    /// What changes, and what a list shows.
    Brief,
    /// Its curve and what it left out, too.
    Full,
}

impl ServiceState {
    pub(super) fn run_message(&self, view: &RunView, detail: RunDetail) -> v1::TrainingRun {
        let RunView { record, progress, waiting } = view;
        let adapter = record.adapter.as_ref().zip(self.training_runs.adapter(record.id.as_str()).ok());
        v1::TrainingRun {
            run: record.id.to_string(),
            training: record.training.to_string(),
            role: record.role.to_string(),
            model: record.model.clone(),
            state: state(record.state).into(),
            start_time: Some(timestamp(record.started)),
            end_time: record.ended.map(timestamp),
            error: self.paths.hide(record.error.as_deref().unwrap_or_default()),
            settings: Some(settings(&record.settings)),
            data: Some(data(&record.data, detail)),
            forecast: progress.forecast.map(forecast),
            progress: progress.last.map(step),
            losses: Some(losses(record, progress)),
            adapter: adapter.map(|(file, path)| self.adapter(file, &path)),
            libraries: libraries(progress),
            curve: match detail {
                RunDetail::Brief => Vec::new(),
                RunDetail::Full => progress.curve().iter().map(point).collect(),
            },
            resumes: progress.resumes,
            waiting: self.paths.hide(waiting.as_deref().unwrap_or_default()),
        }
    }

    fn adapter(&self, adapter: &AdapterFile, path: &Path) -> v1::TrainedAdapter {
        let file = self.paths.hide(&path.to_string_lossy());
        v1::TrainedAdapter { file, sha256: adapter.sha256.clone(), bytes: adapter.bytes }
    }
}

fn state(state: RunState) -> v1::RunState {
    match state {
        RunState::Preparing => v1::RunState::Preparing,
        RunState::Training => v1::RunState::Training,
        RunState::Checking => v1::RunState::Checking,
        RunState::Succeeded => v1::RunState::Succeeded,
        RunState::Failed => v1::RunState::Failed,
        RunState::Stopped => v1::RunState::Stopped,
    }
}

fn settings(settings: &RunSettings) -> v1::RunSettings {
    let RunSettings { lora, schedule, seed, .. } = settings;
    v1::RunSettings {
        rank: lora.rank,
        alpha: lora.alpha,
        dropout: lora.dropout,
        targets: match &lora.targets {
            TrainerTargets::AllLinear => Vec::new(),
            TrainerTargets::Modules(names) => names.clone(),
        },
        epochs: schedule.epochs,
        learning_rate: schedule.learning_rate,
        batch: schedule.batch_samples,
        warmup: schedule.warmup,
        weight_decay: schedule.weight_decay,
        seed: *seed,
    }
}

fn data(data: &RunData, detail: RunDetail) -> v1::RunData {
    let left_out =
        |(origin, reason): &(String, String)| v1::LeftOutSample { origin: origin.clone(), reason: reason.clone() };
    v1::RunData {
        train: data.train,
        held_out: data.held_out,
        left_out: match detail {
            RunDetail::Brief => Vec::new(),
            RunDetail::Full => data.left_out.iter().map(left_out).collect(),
        },
        left_out_count: data.left_out_count,
        train_tokens: data.train_tokens,
        sha256: data.sha256.clone(),
        base_sha256: data.base_sha256.clone(),
        erased: data.erased,
    }
}

fn forecast(forecast: RunForecast) -> v1::RunForecast {
    v1::RunForecast { time: Some(duration(forecast.time)), peak_bytes: forecast.peak_bytes }
}

fn step(last: TrainingStep) -> v1::RunProgress {
    v1::RunProgress {
        step: last.step,
        steps: last.steps,
        epoch: last.epoch,
        loss: last.loss,
        tokens_per_second: last.tokens_per_second,
        samples_per_second: last.samples_per_second,
        time_left: Some(duration(last.time_left)),
    }
}

/// Those of the record, and of a training that goes on, what it has said.
fn losses(record: &RunRecord, progress: &RunProgress) -> v1::HeldOutLosses {
    let HeldOutLosses { before, after, checked, served_before, served } = record.losses;
    v1::HeldOutLosses {
        before: before.or(progress.loss_before),
        after: after.or(progress.loss_after),
        checked,
        served_before,
        served,
    }
}

fn libraries(progress: &RunProgress) -> Vec<v1::InstalledPackage> {
    let package =
        |(name, version): (&String, &String)| v1::InstalledPackage { name: name.clone(), version: version.clone() };
    progress.libraries.iter().map(package).collect()
}

fn point(point: &LossPoint) -> v1::LossPoint {
    v1::LossPoint { step: point.step, loss: point.loss }
}

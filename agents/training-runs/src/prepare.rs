//! From samples to the files that a trainer reads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_roles::{LoraTargets, Role, Training};
use artel_task::TaskId;
use artel_trainer::{
    HELD_OUT_FILE, RunFiles, RunSettings, ScheduleSettings, TRAIN_FILE, TrainerLora, TrainerTargets, TrainingBase,
    TrainingMessage, TrainingSampleLine,
};
use artel_training::{Sample, SampleOrigin, TrainingData};
use futures::StreamExt as _;

use crate::error::{Error, RunFailure};
use crate::host::{HostError, SampleTokens, TrainingHost};
use crate::run_data::RunData;

/// Samples whose tokens are asked for at once: an engine in another process answers one after the other, and is never idle.
const CONCURRENT_SAMPLES: usize = 16;
/// What was left out that is kept in the record; more are counted.
const MAX_LISTED_ITEMS: usize = 1000;
/// What stays free on the disk beside a copy of the model in 16 bits: samples, checkpoints and the daemon's journal need some.
const RESERVED_BYTES: u64 = 512 << 20;

/// What a run is to do.
#[derive(Debug)]
pub struct RunPlan {
    /// The training.
    pub training: Arc<Training>,
    /// Its role.
    pub role: Arc<Role>,
    /// The name of the role's model.
    pub model: String,
    /// Its GGUF.
    pub model_file: PathBuf,
    /// Its samples.
    pub data: TrainingData,
    /// What the model's template is told, by the model and the role.
    pub template_kwargs: serde_json::Map<String, serde_json::Value>,
}

impl RunPlan {
    /// The settings of the trainer.
    pub(crate) fn settings(&self, threads: u32) -> Result<RunSettings, Error> {
        // The trainer works in the directory of the run.
        let absolute = |path: &Path| std::path::absolute(path).map_err(|error| Error::file(path)(error));
        let base = match &self.training.base {
            Some(directory) => TrainingBase::Checkpoint(absolute(directory)?),
            None => TrainingBase::Gguf(absolute(&self.model_file)?),
        };
        let (lora, schedule) = (&self.training.lora, &self.training.schedule);
        let targets = match &lora.targets {
            LoraTargets::AllLinear => TrainerTargets::AllLinear,
            LoraTargets::Named(names) => TrainerTargets::Modules(names.clone()),
        };
        let mut settings = RunSettings::of(base);
        settings.lora = TrainerLora { rank: lora.rank, alpha: lora.alpha, dropout: lora.dropout, targets };
        settings.schedule = ScheduleSettings {
            epochs: schedule.epochs,
            learning_rate: schedule.learning_rate,
            batch_samples: schedule.batch,
            warmup: schedule.warmup,
            weight_decay: schedule.weight_decay,
        };
        (settings.seed, settings.threads) = (self.training.seed, threads);
        settings.template_kwargs.clone_from(&self.template_kwargs);
        settings.check()?;
        Ok(settings)
    }

    /// Whether there is something to train on, and something to measure by.
    pub(crate) fn check_samples(&self) -> Result<(), Error> {
        let held_out = self.data.samples.iter().filter(|sample| sample.is_held_out).count();
        match (self.data.samples.len() - held_out, held_out) {
            (0, _) => Err(Error::Data("there is no sample to train on: `artel data lint` says what was left out")),
            (_, 0) => Err(Error::Data(
                "no sample is held out, so that nothing could be told of an adapter: raise `held_out`, or name a file there",
            )),
            _ => Ok(()),
        }
    }

    /// Whether an adapter of this kind can be trained for the model, converted for it and checked. Blocks on the disk.
    pub(crate) fn check_model(&self, dir: &Path) -> Result<(), Error> {
        let targets = match &self.training.lora.targets {
            LoraTargets::AllLinear => &[],
            LoraTargets::Named(names) => names.as_slice(),
        };
        artel_peft::check_base(&self.model_file, targets).map_err(|error| Error::Base(error.to_string()))?;
        if let Some(base) = self.training.base.as_ref().filter(|base| !base.is_dir()) {
            let reason = "is no directory; name one with the model as Transformers has it, or leave `base` out";
            return Err(Error::Base(format!("the `base` {} of the training {reason}", base.display())));
        }
        let copy_bytes = artel_gguf::float_copy_bytes(&self.model_file);
        let copy_bytes = copy_bytes.map_err(|error| Error::Base(error.to_string()))?.unwrap_or(0);
        let needed_bytes = copy_bytes.saturating_add(RESERVED_BYTES);
        match artel_files::free_bytes(dir) {
            Some(free_bytes) if free_bytes < needed_bytes => {
                Err(Error::Space { path: dir.to_owned(), needed_bytes, free_bytes })
            }
            _ => Ok(()),
        }
    }

    /// The tasks of ratings among its samples, each once.
    pub(crate) fn rated_tasks(&self) -> Vec<TaskId> {
        let task = |sample: &Sample| match &sample.origin {
            SampleOrigin::Rating { task, .. } => Some(*task),
            SampleOrigin::Line { .. } => None,
        };
        let mut tasks: Vec<TaskId> = self.data.samples.iter().filter_map(task).collect();
        tasks.sort_unstable();
        tasks.dedup();
        tasks
    }

    /// Turns its samples into tokens.
    pub(crate) async fn prepare(self: Arc<Self>, host: Arc<dyn TrainingHost>) -> Result<PreparedSamples, RunFailure> {
        let left_out = self.data.left_out.iter().map(|out| (out.origin.to_string(), out.reason.clone()));
        let mut data = RunData {
            left_out: left_out.take(MAX_LISTED_ITEMS).collect(),
            left_out_count: self.data.left_out_count as u64,
            ..RunData::default()
        };
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        let this = self.clone();
        let tokens = (0..self.data.samples.len()).map(move |at| {
            let (this, host) = (this.clone(), host.clone());
            async move {
                let sample = &this.data.samples[at];
                (at, host.tokenize(&this.role, &sample.messages, &sample.answer).await)
            }
        });
        let mut tokens = futures::stream::iter(tokens).buffered(CONCURRENT_SAMPLES);
        while let Some((at, tokens)) = tokens.next().await {
            let sample = &self.data.samples[at];
            match tokens {
                Ok(tokens) if sample.is_held_out => held_out.push(line(sample, tokens)),
                Ok(tokens) => {
                    data.train_tokens += (tokens.prompt.len() + tokens.answer.len()) as u64;
                    train.push(line(sample, tokens));
                }
                Err(HostError::Sample(reason)) => {
                    data.left_out_count += 1;
                    if data.left_out.len() < MAX_LISTED_ITEMS {
                        data.left_out.push((sample.origin.to_string(), reason));
                    }
                }
                Err(error) => return Err(RunFailure::Tokens(error)),
            }
        }
        (data.train, data.held_out) = (train.len() as u64, held_out.len() as u64);
        match (data.train, data.held_out) {
            (0, _) => Err(RunFailure::NoSamples("the model can learn from no sample")),
            (_, 0) => Err(RunFailure::NoSamples("the model can be measured by no sample")),
            _ => Ok(PreparedSamples { train, held_out, data }),
        }
    }
}

/// Samples as a trainer reads them, and what a record tells of them.
pub(crate) struct PreparedSamples {
    train: Vec<TrainingSampleLine>,
    held_out: Vec<TrainingSampleLine>,
    data: RunData,
}

impl PreparedSamples {
    /// Writes the files of a run: the settings come last. Blocks on the disk.
    pub(crate) fn write(self, settings: &RunSettings, dir: &Path) -> Result<RunData, RunFailure> {
        RunFiles::new(dir).write(settings, self.train, self.held_out)?;
        let samples = [dir.join(TRAIN_FILE), dir.join(HELD_OUT_FILE)];
        let sha256 = artel_files::sha256(&samples).map_err(RunFailure::file("read", dir))?;
        Ok(RunData { sha256, ..self.data })
    }
}

fn line(sample: &Sample, tokens: SampleTokens) -> TrainingSampleLine {
    let message = |message: &artel_training::SampleMessage| TrainingMessage {
        role: message.role.to_owned(),
        content: message.content.clone(),
    };
    TrainingSampleLine {
        origin: sample.origin.to_string(),
        prompt: tokens.prompt,
        answer: tokens.answer,
        messages: sample.messages.iter().map(message).collect(),
        text: sample.answer.clone(),
    }
}

//! From samples to the files that a trainer reads.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_roles::{LoraTargets, Role, Training};
use artel_task::TaskId;
use artel_trainer::{
    LoraSettings, LoraTargets as TrainerTargets, RunFiles, RunSettings, ScheduleSettings, TrainingBase,
    TrainingMessage, TrainingSampleLine,
};
use artel_training::{Sample, SampleOrigin, TrainingData};
use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, RunFailure};
use crate::host::{HostError, SampleTokens, TrainingHost};
use crate::record::RunData;

/// Samples whose tokens are asked for at once: an engine in another process answers one after the other, and is never idle.
const CONCURRENT_SAMPLES: usize = 16;
/// What was left out that is kept in the record; more are counted.
const MAX_LISTED_ITEMS: usize = 1000;
/// Bytes that are hashed at once.
const HASH_CHUNK_BYTES: usize = 1 << 20;

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
        let base = match &self.training.base {
            Some(directory) => TrainingBase::Checkpoint(directory.clone()),
            None => TrainingBase::Gguf(self.model_file.clone()),
        };
        let (lora, schedule) = (&self.training.lora, &self.training.schedule);
        let targets = match &lora.targets {
            LoraTargets::AllLinear => TrainerTargets::AllLinear,
            LoraTargets::Named(names) => TrainerTargets::Modules(names.clone()),
        };
        let mut settings = RunSettings::of(base);
        settings.lora = LoraSettings { rank: lora.rank, alpha: lora.alpha, dropout: lora.dropout, targets };
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

    /// Writes the files of a run: the settings come last.
    pub(crate) async fn write(
        self,
        settings: RunSettings,
        host: &Arc<dyn TrainingHost>,
        dir: &Path,
    ) -> Result<RunData, RunFailure> {
        let Self { role, model_file, data, .. } = self;
        let left_out = data.left_out.iter().map(|out| (out.origin.to_string(), out.reason.clone()));
        let mut written = RunData {
            left_out: left_out.take(MAX_LISTED_ITEMS).collect(),
            left_out_count: data.left_out_count as u64,
            rated_tasks: rated_tasks(&data.samples),
            ..RunData::default()
        };
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        let tokens = data.samples.into_iter().map(|sample| async {
            let tokens = host.tokenize(&role, &sample.messages, &sample.answer).await;
            (sample, tokens)
        });
        let mut tokens = futures::stream::iter(tokens).buffered(CONCURRENT_SAMPLES);
        while let Some((sample, tokens)) = tokens.next().await {
            match tokens {
                Ok(tokens) if sample.is_held_out => held_out.push(line(sample, tokens)),
                Ok(tokens) => {
                    written.train_tokens += (tokens.prompt.len() + tokens.answer.len()) as u64;
                    train.push(line(sample, tokens));
                }
                Err(HostError::Sample(reason)) => {
                    written.left_out_count += 1;
                    if written.left_out.len() < MAX_LISTED_ITEMS {
                        written.left_out.push((sample.origin.to_string(), reason));
                    }
                }
                Err(error) => return Err(RunFailure::Tokens(error)),
            }
        }
        drop(tokens);
        (written.train, written.held_out) = (train.len() as u64, held_out.len() as u64);
        match (written.train, written.held_out) {
            (0, _) => return Err(RunFailure::NoSamples("the model can learn from no sample")),
            (_, 0) => return Err(RunFailure::NoSamples("the model can be measured by no sample")),
            _ => {}
        }
        let dir = dir.to_owned();
        let hashed = tokio::task::spawn_blocking(move || {
            let files = RunFiles::new(&dir);
            files.write(&settings, train, held_out)?;
            let samples = [dir.join(TRAIN_FILE), dir.join(HELD_OUT_FILE)];
            let samples = sha256(&samples).map_err(RunFailure::file("read", &dir))?;
            let base = sha256(std::slice::from_ref(&model_file)).map_err(RunFailure::file("read", &model_file))?;
            Ok::<_, RunFailure>((samples, base))
        });
        (written.sha256, written.base_sha256) = hashed.await.map_err(|_| RunFailure::Internal)??;
        Ok(written)
    }
}

/// The files with samples in the directory of a run.
pub(crate) const TRAIN_FILE: &str = "train.jsonl";
pub(crate) const HELD_OUT_FILE: &str = "held_out.jsonl";

fn line(sample: Sample, tokens: SampleTokens) -> TrainingSampleLine {
    let message = |message: artel_training::SampleMessage| TrainingMessage {
        role: message.role.to_owned(),
        content: message.content,
    };
    TrainingSampleLine {
        origin: sample.origin.to_string(),
        prompt: tokens.prompt,
        answer: tokens.answer,
        messages: sample.messages.into_iter().map(message).collect(),
        text: sample.answer,
    }
}

/// The tasks of ratings, each once.
fn rated_tasks(samples: &[Sample]) -> Vec<TaskId> {
    let task = |sample: &Sample| match &sample.origin {
        SampleOrigin::Rating { task, .. } => Some(*task),
        SampleOrigin::Line { .. } => None,
    };
    let mut tasks: Vec<TaskId> = samples.iter().filter_map(task).collect();
    tasks.sort_unstable();
    tasks.dedup();
    tasks
}

/// The SHA-256 of files one after the other, in hexadecimal digits.
pub(crate) fn sha256(paths: &[PathBuf]) -> io::Result<String> {
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; HASH_CHUNK_BYTES]);
    for path in paths {
        let mut file = File::open(path)?;
        loop {
            match file.read(&mut chunk)? {
                0 => break,
                read => hash.update(&chunk[..read]),
            }
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

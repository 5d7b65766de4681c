//! What is kept of a run.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use artel_task::event::Timestamp;
use artel_task::{RoleName, TaskId, TrainingName};
use artel_trainer::RunSettings;
use serde::{Deserialize, Serialize};

use crate::run_id::RunId;

/// The file in the directory of a run.
const FILE: &str = "run.json";
/// Changes when an older daemon could not read it.
const FORMAT: u32 = 1;
/// The largest record: a run lists what it left out, and the tasks whose ratings it learned from.
const MAX_RECORD_BYTES: u64 = 64 << 20;

/// A run, as it is kept in its directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    format: u32,
    /// Its id.
    pub id: RunId,
    /// The training.
    pub training: TrainingName,
    /// The role whose answers are to become better.
    pub role: RoleName,
    /// The model of the role.
    pub model: String,
    /// How far it is.
    pub state: RunState,
    /// When it was started.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// What it trains with.
    pub settings: RunSettings,
    /// The file of the role's model.
    pub model_file: std::path::PathBuf,
    /// What it learns from.
    pub data: RunData,
    /// Losses under llama.cpp and the trainer.
    pub losses: HeldOutLosses,
    /// Its adapter.
    pub adapter: Option<AdapterFile>,
    /// Why it has none.
    pub error: Option<String>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Its samples are turned into tokens.
    Preparing,
    /// Its trainer runs, or will.
    Training,
    /// Its adapter is converted and measured.
    Checking,
    /// It has an adapter that passed.
    Succeeded,
    /// It has none.
    Failed,
    /// It was stopped.
    Stopped,
}

impl RunState {
    /// Whether nothing more happens.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Stopped)
    }
}

/// What a run learns from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunData {
    /// Samples that are trained on.
    pub train: u64,
    /// Samples that are measured by.
    pub held_out: u64,
    /// Tokens of those that are trained on.
    pub train_tokens: u64,
    /// What did not become a sample, with the reason; some hundreds of them.
    pub left_out: Vec<(String, String)>,
    /// All that did not become a sample.
    pub left_out_count: u64,
    /// The SHA-256 of the samples, in hexadecimal digits.
    pub sha256: String,
    /// The SHA-256 of the model's file, in hexadecimal digits.
    pub base_sha256: String,
    /// The tasks whose ratings are among the samples.
    pub rated_tasks: Vec<TaskId>,
    /// Of these, the ones that were erased since.
    pub erased: u64,
}

/// The mean negative log-likelihood of the answers that are held out, in nats per token.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct HeldOutLosses {
    /// Of the model as it is, by the trainer.
    pub before: Option<f64>,
    /// With the adapter, by the trainer.
    pub after: Option<f64>,
    /// With the adapter, by llama.cpp on the same weights in 16 bits.
    pub checked: Option<f64>,
    /// Of the model as it serves, by llama.cpp.
    pub served_before: Option<f64>,
    /// Of the model as it serves with the adapter, by llama.cpp.
    pub served: Option<f64>,
}

/// A GGUF of an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterFile {
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

impl RunRecord {
    pub(crate) fn new(
        id: RunId,
        (training, role, model): (TrainingName, RoleName, String),
        model_file: std::path::PathBuf,
        settings: RunSettings,
        started: Timestamp,
    ) -> Self {
        Self {
            format: FORMAT,
            id,
            training,
            role,
            model,
            state: RunState::Preparing,
            started,
            ended: None,
            settings,
            model_file,
            data: RunData::default(),
            losses: HeldOutLosses::default(),
            adapter: None,
            error: None,
        }
    }

    /// Reads the record in a directory.
    pub(crate) fn read(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        if fs::metadata(&path)?.len() > MAX_RECORD_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large for a record"));
        }
        let record: Self = serde_json::from_slice(&fs::read(path)?)?;
        match record.format {
            FORMAT => Ok(record),
            format => Err(io::Error::new(io::ErrorKind::InvalidData, format!("its format {format} is not known"))),
        }
    }

    /// Replaces the record in a directory.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join(format!("{FILE}.new"));
        let mut file = File::create(&new)?;
        serde_json::to_writer(&mut file, self)?;
        file.sync_all()?;
        fs::rename(&new, dir.join(FILE))?;
        File::open(dir)?.sync_all()
    }
}

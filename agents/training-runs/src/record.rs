//! What is kept of a run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use artel_files::whole_file;
use artel_task::event::Timestamp;
use artel_task::{RoleName, TrainingName};
use artel_trainer::RunSettings;
use serde::{Deserialize, Serialize};

use crate::prepare::RunPlan;
use crate::run_data::RunData;
use crate::run_id::RunId;

/// The file in the directory of a run.
pub(crate) const RECORD_FILE: &str = "run.json";
/// Changes when an older daemon could not read it.
const FORMAT_VERSION: u32 = 1;
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
    pub model_file: PathBuf,
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
    /// It was stopped, by a client or since ratings that it learned from were erased.
    Stopped,
}

impl RunState {
    /// Whether nothing more happens.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Stopped)
    }
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
    pub(crate) fn new(id: RunId, plan: &RunPlan, settings: RunSettings, started: Timestamp) -> Self {
        Self {
            format: FORMAT_VERSION,
            id,
            training: plan.training.name.clone(),
            role: plan.role.name.clone(),
            model: plan.model.clone(),
            state: RunState::Preparing,
            started,
            ended: None,
            settings,
            model_file: plan.model_file.clone(),
            data: RunData { rated_tasks: plan.rated_tasks(), ..RunData::default() },
            losses: HeldOutLosses::default(),
            adapter: None,
            error: None,
        }
    }

    /// Reads the record in a directory.
    pub(crate) fn read(dir: &Path) -> io::Result<Self> {
        let path = dir.join(RECORD_FILE);
        if fs::metadata(&path)?.len() > MAX_RECORD_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large for a record"));
        }
        let record: Self = serde_json::from_slice(&fs::read(path)?)?;
        match record.format {
            FORMAT_VERSION => Ok(record),
            format => Err(io::Error::new(io::ErrorKind::InvalidData, format!("its format {format} is not known"))),
        }
    }

    /// Replaces the record in a directory.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        whole_file::write(&dir.join(RECORD_FILE), |file| Ok(serde_json::to_writer(file, self)?))
    }
}

/// The time, as records have it.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

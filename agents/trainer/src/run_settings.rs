//! The settings of a run, as the trainer reads them from `settings.json`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Counts up when the trainer must read a run otherwise.
const FORMAT_VERSION: u32 = 1;
/// The largest rank: beyond it an adapter is no smaller than what it adapts.
const MAX_RANK: u32 = 1024;
/// The most passes over the data: a role's few samples are learned by heart long before.
const MAX_EPOCHS: f64 = 1000.0;
/// The most samples of a step.
const MAX_BATCH_SAMPLES: u32 = 4096;
/// The most threads: those of the largest machine.
const MAX_THREADS: u32 = 4096;
/// The shortest and the longest time between checkpoints: writing one takes a second, and a kill loses what was done since.
const CHECKPOINT_SECONDS: std::ops::RangeInclusive<u32> = 1..=3600;
/// The most modules that are named, and the characters of a name.
const MAX_TARGETS: usize = 64;
const MAX_TARGET_CHARS: usize = 256;
/// The largest text of the arguments of the chat template.
const MAX_KWARGS_BYTES: usize = 64 << 10;

/// What a run is: its base, its adapter, and how it is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSettings {
    format: u32,
    /// The model that is adapted.
    pub base: TrainingBase,
    /// The adapter.
    pub lora: LoraSettings,
    /// The steps.
    pub schedule: ScheduleSettings,
    /// From which all that is random comes.
    pub seed: u32,
    /// The threads that compute on the CPU.
    pub threads: u32,
    /// Where it computes.
    pub device: TrainerDevice,
    /// The arguments of the chat template, such as `enable_thinking`.
    pub template_kwargs: serde_json::Map<String, serde_json::Value>,
    /// The longest time between two checkpoints, in seconds.
    pub checkpoint_seconds: u32,
}

/// The model that is adapted, by an absolute path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainingBase {
    /// A GGUF file.
    Gguf(PathBuf),
    /// A directory as Transformers writes it.
    Checkpoint(PathBuf),
}

/// The adapter's form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraSettings {
    /// The rank of its matrices.
    pub rank: u32,
    /// Its product is scaled by alpha / rank.
    pub alpha: f64,
    /// The part of its inputs that is left out at random while training, of 1.
    pub dropout: f64,
    /// What it adapts.
    pub targets: LoraTargets,
}

/// The modules of the base that are adapted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenTargets", into = "WrittenTargets")]
pub enum LoraTargets {
    /// Every linear one but the output.
    AllLinear,
    /// Those of these names, such as `q_proj`.
    Modules(Vec<String>),
}

/// The targets as JSON has them: a word or a list.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenTargets {
    Word(String),
    Modules(Vec<String>),
}

/// The word for every linear module.
const ALL_LINEAR: &str = "all-linear";

impl From<LoraTargets> for WrittenTargets {
    fn from(targets: LoraTargets) -> Self {
        match targets {
            LoraTargets::AllLinear => Self::Word(ALL_LINEAR.to_owned()),
            LoraTargets::Modules(names) => Self::Modules(names),
        }
    }
}

impl TryFrom<WrittenTargets> for LoraTargets {
    type Error = InvalidSetting;

    fn try_from(written: WrittenTargets) -> Result<Self, InvalidSetting> {
        match written {
            WrittenTargets::Word(word) if word == ALL_LINEAR => Ok(Self::AllLinear),
            WrittenTargets::Word(_) => {
                Err(InvalidSetting { field: "lora.targets", rule: "`all-linear` or names of modules" })
            }
            WrittenTargets::Modules(names) => Ok(Self::Modules(names)),
        }
    }
}

/// How many steps, and how large.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleSettings {
    /// The passes over the data.
    pub epochs: f64,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// The samples of a step.
    pub batch_samples: u32,
    /// The part of the steps in which the learning rate rises, of 1.
    pub warmup: f64,
    /// The weight decay of AdamW.
    pub weight_decay: f64,
}

/// Where a run computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainerDevice {
    /// On a GPU if there is one.
    Auto,
    /// On the CPU.
    Cpu,
    /// On an NVIDIA GPU.
    Cuda,
}

/// A setting outside its limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` must be {rule}")]
pub struct InvalidSetting {
    /// The setting, by its path in `settings.json`.
    pub field: &'static str,
    /// What it must be.
    pub rule: &'static str,
}

impl RunSettings {
    /// The settings of a base, with the values that a run has when nothing is said of them.
    pub fn of(base: TrainingBase) -> Self {
        Self {
            format: FORMAT_VERSION,
            base,
            lora: LoraSettings { rank: 16, alpha: 32.0, dropout: 0.0, targets: LoraTargets::AllLinear },
            schedule: ScheduleSettings {
                epochs: 3.0,
                learning_rate: 2e-4,
                batch_samples: 8,
                warmup: 0.1,
                weight_decay: 0.0,
            },
            seed: 0,
            threads: 1,
            device: TrainerDevice::Auto,
            template_kwargs: serde_json::Map::new(),
            checkpoint_seconds: 30,
        }
    }

    /// Checks every setting against its limits.
    ///
    /// # Errors
    /// The first one that is outside.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let (lora, schedule) = (&self.lora, &self.schedule);
        let is_positive = |value: f64| value.is_finite() && value > 0.0;
        let is_part = |value: f64| (0.0..1.0).contains(&value);
        let kwargs = serde_json::to_string(&self.template_kwargs).map_or(usize::MAX, |text| text.len());
        let rules = [
            ("format", "1", self.format == FORMAT_VERSION),
            ("base", "an absolute path in UTF-8", is_plain_path(self.base.path())),
            ("lora.rank", "from 1 to 1024", (1..=MAX_RANK).contains(&lora.rank)),
            ("lora.alpha", "above 0", is_positive(lora.alpha)),
            ("lora.dropout", "from 0 to below 1", is_part(lora.dropout)),
            ("lora.targets", "from 1 to 64 names of at most 256 characters", lora.targets.is_within_limits()),
            (
                "schedule.epochs",
                "above 0 and at most 1000",
                is_positive(schedule.epochs) && schedule.epochs <= MAX_EPOCHS,
            ),
            (
                "schedule.learning_rate",
                "above 0 and at most 1",
                is_positive(schedule.learning_rate) && schedule.learning_rate <= 1.0,
            ),
            ("schedule.batch_samples", "from 1 to 4096", (1..=MAX_BATCH_SAMPLES).contains(&schedule.batch_samples)),
            ("schedule.warmup", "from 0 to below 1", is_part(schedule.warmup)),
            ("schedule.weight_decay", "from 0 to below 1", is_part(schedule.weight_decay)),
            ("threads", "from 1 to 4096", (1..=MAX_THREADS).contains(&self.threads)),
            ("template_kwargs", "at most 64 KiB", kwargs <= MAX_KWARGS_BYTES),
            ("checkpoint_seconds", "from 1 to 3600", CHECKPOINT_SECONDS.contains(&self.checkpoint_seconds)),
        ];
        match rules.into_iter().find(|(.., holds)| !holds) {
            Some((field, rule, _)) => Err(InvalidSetting { field, rule }),
            None => Ok(()),
        }
    }
}

impl TrainingBase {
    /// The path of the file or directory.
    pub fn path(&self) -> &Path {
        match self {
            Self::Gguf(path) | Self::Checkpoint(path) => path,
        }
    }
}

impl LoraTargets {
    fn is_within_limits(&self) -> bool {
        let is_name = |name: &String| !name.is_empty() && name.chars().count() <= MAX_TARGET_CHARS;
        match self {
            Self::AllLinear => true,
            Self::Modules(names) => (1..=MAX_TARGETS).contains(&names.len()) && names.iter().all(is_name),
        }
    }
}

fn is_plain_path(path: &Path) -> bool {
    path.is_absolute() && path.to_str().is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings() -> RunSettings {
        RunSettings::of(TrainingBase::Gguf("/models/base.gguf".into()))
    }

    #[test]
    fn the_settings_are_written_as_the_contract_has_them() {
        let mut settings = settings();
        settings.threads = 2;
        settings.template_kwargs.insert("enable_thinking".to_owned(), json!(false));
        let expected = json!({
            "format": 1,
            "base": {"gguf": "/models/base.gguf"},
            "lora": {"rank": 16, "alpha": 32.0, "dropout": 0.0, "targets": "all-linear"},
            "schedule": {"epochs": 3.0, "learning_rate": 0.0002, "batch_samples": 8, "warmup": 0.1, "weight_decay": 0.0},
            "seed": 0,
            "threads": 2,
            "device": "auto",
            "template_kwargs": {"enable_thinking": false},
            "checkpoint_seconds": 30,
        });
        assert_eq!(serde_json::to_value(&settings).unwrap(), expected);
        settings.lora.targets = LoraTargets::Modules(vec!["q_proj".to_owned()]);
        let written = serde_json::to_value(&settings).unwrap();
        assert_eq!(written["lora"]["targets"], json!(["q_proj"]));
        assert_eq!(serde_json::from_value::<RunSettings>(written.clone()).unwrap(), settings);
        let mut wrong = written;
        wrong["lora"]["targets"] = json!("all");
        assert!(serde_json::from_value::<RunSettings>(wrong).is_err());
    }

    #[test]
    fn each_setting_has_its_limits() {
        type Change = fn(&mut RunSettings);
        let changes: [(&str, Change); 14] = [
            ("base", |s| s.base = TrainingBase::Checkpoint("relative".into())),
            ("lora.rank", |s| s.lora.rank = 0),
            ("lora.alpha", |s| s.lora.alpha = f64::NAN),
            ("lora.dropout", |s| s.lora.dropout = 1.0),
            ("lora.targets", |s| s.lora.targets = LoraTargets::Modules(Vec::new())),
            ("lora.targets", |s| s.lora.targets = LoraTargets::Modules(vec![String::new()])),
            ("schedule.epochs", |s| s.schedule.epochs = f64::INFINITY),
            ("schedule.learning_rate", |s| s.schedule.learning_rate = 0.0),
            ("schedule.batch_samples", |s| s.schedule.batch_samples = 5000),
            ("schedule.warmup", |s| s.schedule.warmup = -0.1),
            ("schedule.weight_decay", |s| s.schedule.weight_decay = f64::NAN),
            ("threads", |s| s.threads = 0),
            ("template_kwargs", |s| {
                drop(s.template_kwargs.insert("k".to_owned(), json!("x".repeat(MAX_KWARGS_BYTES))));
            }),
            ("checkpoint_seconds", |s| s.checkpoint_seconds = 0),
        ];
        assert_eq!(settings().check(), Ok(()));
        for (field, change) in changes {
            let mut settings = settings();
            change(&mut settings);
            assert_eq!(settings.check().map_err(|e| e.field), Err(field));
        }
    }
}

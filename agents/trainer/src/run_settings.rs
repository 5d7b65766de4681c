//! The settings of a run, as the trainer reads them from `settings.json`.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Counts up when the trainer must read a run otherwise.
const FORMAT_VERSION: u32 = 1;
/// The limits of `lora` and `schedule` are those of the keys of a training in YAML (`artel-roles`): what is accepted there is never
/// refused here.
const MAX_RANK: u32 = 512;
const ALPHAS: RangeInclusive<f64> = 0.01..=4096.0;
const DROPOUT_RATIOS: RangeInclusive<f64> = 0.0..=0.9;
const MAX_TARGETS: usize = 32;
const MAX_TARGET_CHARS: usize = 64;
const EPOCHS: RangeInclusive<f64> = 0.01..=1000.0;
const LEARNING_RATES: RangeInclusive<f64> = 1e-7..=1.0;
const MAX_BATCH_SAMPLES: u32 = 1024;
const WARMUP_RATIOS: RangeInclusive<f64> = 0.0..=0.5;
const WEIGHT_DECAYS: RangeInclusive<f64> = 0.0..=1.0;
/// The largest text of the arguments of the chat template. Those of a model and of a role have 32 each, of 4 KiB, beside their names.
const MAX_KWARGS_BYTES: usize = 512 << 10;
/// The most threads: those of the largest machine.
const MAX_THREADS: u32 = 4096;
/// The shortest and the longest time between checkpoints: writing one takes a second, and a kill loses what was done since.
const CHECKPOINT_SECONDS: RangeInclusive<u32> = 1..=3600;

/// What a run is: its base, its adapter, and how it is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSettings {
    format: u32,
    /// The model that is adapted.
    pub base: TrainingBase,
    /// The adapter.
    pub lora: TrainerLora,
    /// The steps.
    pub schedule: ScheduleSettings,
    /// From which all that is random comes.
    pub seed: u32,
    /// The threads that compute on the CPU.
    pub threads: u32,
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
pub struct TrainerLora {
    /// The rank of its matrices.
    pub rank: u32,
    /// Its product is scaled by alpha / rank.
    pub alpha: f64,
    /// The part of its inputs that is left out at random while training, of 1.
    pub dropout: f64,
    /// What it adapts.
    pub targets: TrainerTargets,
}

/// The modules of the base that are adapted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenTargets", into = "WrittenTargets")]
pub enum TrainerTargets {
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

impl From<TrainerTargets> for WrittenTargets {
    fn from(targets: TrainerTargets) -> Self {
        match targets {
            TrainerTargets::AllLinear => Self::Word(ALL_LINEAR.to_owned()),
            TrainerTargets::Modules(names) => Self::Modules(names),
        }
    }
}

impl TryFrom<WrittenTargets> for TrainerTargets {
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

/// A setting outside its limits. Of those that a user writes this can be the path `base` alone: the others have the same limits in YAML,
/// where they are checked first.
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
            lora: TrainerLora { rank: 16, alpha: 32.0, dropout: 0.0, targets: TrainerTargets::AllLinear },
            schedule: ScheduleSettings {
                epochs: 3.0,
                learning_rate: 2e-4,
                batch_samples: 8,
                warmup: 0.1,
                weight_decay: 0.0,
            },
            seed: 0,
            threads: 1,
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
        let kwargs = serde_json::to_string(&self.template_kwargs).map_or(usize::MAX, |text| text.len());
        let targets = "from 1 to 32 names of at most 64 letters, digits and `_`";
        let rules = [
            ("format", "1", self.format == FORMAT_VERSION),
            ("base", "an absolute path in UTF-8", is_plain_path(self.base.path())),
            ("lora.rank", "from 1 to 512", (1..=MAX_RANK).contains(&lora.rank)),
            ("lora.alpha", "from 0.01 to 4096", ALPHAS.contains(&lora.alpha)),
            ("lora.dropout", "from 0 to 0.9", DROPOUT_RATIOS.contains(&lora.dropout)),
            ("lora.targets", targets, lora.targets.is_within_limits()),
            ("schedule.epochs", "from 0.01 to 1000", EPOCHS.contains(&schedule.epochs)),
            ("schedule.learning_rate", "from 1e-7 to 1", LEARNING_RATES.contains(&schedule.learning_rate)),
            ("schedule.batch_samples", "from 1 to 1024", (1..=MAX_BATCH_SAMPLES).contains(&schedule.batch_samples)),
            ("schedule.warmup", "from 0 to 0.5", WARMUP_RATIOS.contains(&schedule.warmup)),
            ("schedule.weight_decay", "from 0 to 1", WEIGHT_DECAYS.contains(&schedule.weight_decay)),
            ("threads", "from 1 to 4096", (1..=MAX_THREADS).contains(&self.threads)),
            ("template_kwargs", "at most 512 KiB", kwargs <= MAX_KWARGS_BYTES),
            ("checkpoint_seconds", "from 1 to 3600", CHECKPOINT_SECONDS.contains(&self.checkpoint_seconds)),
        ];
        match rules.into_iter().find(|(.., holds)| !holds) {
            Some((field, rule, _)) => Err(InvalidSetting { field, rule }),
            None => Ok(()),
        }
    }
}

impl TrainingBase {
    fn path(&self) -> &Path {
        match self {
            Self::Gguf(path) | Self::Checkpoint(path) => path,
        }
    }
}

impl TrainerTargets {
    fn is_within_limits(&self) -> bool {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let is_name = |name: &String| (1..=MAX_TARGET_CHARS).contains(&name.len()) && name.bytes().all(is_word);
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
            "template_kwargs": {"enable_thinking": false},
            "checkpoint_seconds": 30,
        });
        assert_eq!(serde_json::to_value(&settings).unwrap(), expected);
        settings.lora.targets = TrainerTargets::Modules(vec!["q_proj".to_owned()]);
        let written = serde_json::to_value(&settings).unwrap();
        assert_eq!(written["lora"]["targets"], json!(["q_proj"]));
        assert_eq!(serde_json::from_value::<RunSettings>(written.clone()).unwrap(), settings);
        let mut wrong = written;
        wrong["lora"]["targets"] = json!("all");
        assert!(serde_json::from_value::<RunSettings>(wrong).is_err());
    }

    #[test]
    fn the_largest_settings_that_yaml_accepts_are_taken() {
        let mut settings = settings();
        let targets = TrainerTargets::Modules(vec!["x".repeat(64); 32]);
        settings.lora = TrainerLora { rank: 512, alpha: 4096.0, dropout: 0.9, targets };
        settings.schedule = ScheduleSettings {
            epochs: 1000.0,
            learning_rate: 1.0,
            batch_samples: 1024,
            warmup: 0.5,
            weight_decay: 1.0,
        };
        settings.template_kwargs = (0..64).map(|n| (format!("{n:064}"), json!("x".repeat(4094)))).collect();
        assert_eq!(settings.check(), Ok(()));
    }

    #[test]
    fn each_setting_has_its_limits() {
        type Change = fn(&mut RunSettings);
        let changes: [(&str, Change); 15] = [
            ("base", |s| s.base = TrainingBase::Checkpoint("relative".into())),
            ("lora.rank", |s| s.lora.rank = 0),
            ("lora.alpha", |s| s.lora.alpha = f64::NAN),
            ("lora.dropout", |s| s.lora.dropout = 1.0),
            ("lora.targets", |s| s.lora.targets = TrainerTargets::Modules(Vec::new())),
            ("lora.targets", |s| s.lora.targets = TrainerTargets::Modules(vec![String::new()])),
            ("lora.targets", |s| s.lora.targets = TrainerTargets::Modules(vec!["mlp.up_proj".to_owned()])),
            ("schedule.epochs", |s| s.schedule.epochs = f64::INFINITY),
            ("schedule.learning_rate", |s| s.schedule.learning_rate = 0.0),
            ("schedule.batch_samples", |s| s.schedule.batch_samples = 1025),
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

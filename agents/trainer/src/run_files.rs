//! The files of a run that the trainer reads.

use std::io;
use std::path::{Path, PathBuf};

use artel_files::whole_file;
use serde::Serialize;

use crate::run_settings::{InvalidSetting, RunSettings};

/// The file of a run's settings, in its directory.
pub const SETTINGS_FILE: &str = "settings.json";
/// The file of the samples that are trained on.
pub const TRAIN_FILE: &str = "train.jsonl";
/// The file of the samples that are measured by.
pub const HELD_OUT_FILE: &str = "held_out.jsonl";
/// The most samples of a file: the trainer holds all in memory.
const MAX_SAMPLES: usize = 1_000_000;
/// The most tokens of a sample: the longest context of a model that is served.
const MAX_SAMPLE_TOKENS: usize = 1 << 20;
/// The longest line: the tokens of such a sample as numbers, and their text.
const MAX_LINE_BYTES: usize = 32 << 20;
/// The largest file: as many samples of an ordinary length.
const MAX_FILE_BYTES: u64 = 16 << 30;

/// A sample as the trainer reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrainingSampleLine {
    /// Where it comes from, such as `mail.jsonl:3`.
    pub origin: String,
    /// The tokens that the model reads, the generation prompt included.
    pub prompt: Vec<u32>,
    /// The tokens of the answer, the end of the turn last. The loss is taken on these alone.
    pub answer: Vec<u32>,
    /// The messages of which the prompt is made.
    pub messages: Vec<TrainingMessage>,
    /// The answer as text.
    pub text: String,
}

/// A message of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrainingMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

/// A run's directory.
#[derive(Debug, Clone)]
pub struct RunFiles {
    run: PathBuf,
}

/// The files of a run could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RunFilesError {
    /// A setting is outside its limits.
    #[error("write the settings of the run: {0}")]
    Setting(#[from] InvalidSetting),
    /// A sample is not fit to be trained on.
    #[error("write the sample {origin} of the run: {why}; shorten it or leave it out")]
    Sample {
        /// Where the sample comes from.
        origin: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There are no samples, too many, or too large ones.
    #[error("write the run's {file}: {why}")]
    Samples {
        /// The file's name.
        file: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The system refused something.
    #[error("write the run's file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl RunFilesError {
    /// Whether the files may be written later, with nothing changed in the run.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Io { .. } => true,
            Self::Setting(_) | Self::Sample { .. } | Self::Samples { .. } => false,
        }
    }
}

impl RunFiles {
    /// The files in a run's directory.
    pub fn new(run: &Path) -> Self {
        Self { run: run.to_owned() }
    }

    /// Writes all files, each as a whole. The settings come last: a directory that has them has all. The directory is not made: one that
    /// was removed stays away.
    ///
    /// # Errors
    /// A setting or a sample is outside its limits, or a file cannot be written.
    pub fn write(
        &self,
        settings: &RunSettings,
        train: impl IntoIterator<Item = TrainingSampleLine>,
        held_out: impl IntoIterator<Item = TrainingSampleLine>,
    ) -> Result<(), RunFilesError> {
        settings.check()?;
        self.write_samples(TRAIN_FILE, train)?;
        self.write_samples(HELD_OUT_FILE, held_out)?;
        let path = self.run.join(SETTINGS_FILE);
        let written = whole_file::write(&path, |file| Ok(serde_json::to_writer_pretty(file, settings)?));
        written.map_err(|source| RunFilesError::Io { path, source })
    }

    fn write_samples(
        &self,
        file: &'static str,
        samples: impl IntoIterator<Item = TrainingSampleLine>,
    ) -> Result<(), RunFilesError> {
        let path = self.run.join(file);
        // An error of ours on its way through a function that knows those of files alone.
        let mut refused = None;
        let written = whole_file::write(&path, |out| {
            write_lines(out, file, samples).map_err(|error| match error {
                RunFilesError::Io { source, .. } => source,
                other => {
                    refused = Some(other);
                    io::Error::other("refused")
                }
            })
        });
        match (written, refused) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(error)) => Err(error),
            (Err(source), None) => Err(RunFilesError::Io { path, source }),
        }
    }
}

fn write_lines(
    out: &mut impl io::Write,
    file: &'static str,
    samples: impl IntoIterator<Item = TrainingSampleLine>,
) -> Result<(), RunFilesError> {
    let limit = |why| RunFilesError::Samples { file, why };
    let (mut count, mut bytes) = (0, 0);
    for sample in samples {
        count += 1;
        if count > MAX_SAMPLES {
            return Err(limit("it would have more than a million samples; train on fewer"));
        }
        let line = line_of(&sample)?;
        bytes += line.len() as u64;
        if bytes > MAX_FILE_BYTES {
            return Err(limit("it would have more than 16 GiB; train on fewer samples"));
        }
        out.write_all(&line).map_err(|source| RunFilesError::Io { path: PathBuf::from(file), source })?;
    }
    if count == 0 { Err(limit("it would have no samples; add some to the training's data")) } else { Ok(()) }
}

fn line_of(sample: &TrainingSampleLine) -> Result<Vec<u8>, RunFilesError> {
    let refuse = |why| RunFilesError::Sample { origin: sample.origin.clone(), why };
    if sample.prompt.is_empty() {
        return Err(refuse("its prompt has no tokens"));
    }
    if sample.answer.is_empty() {
        return Err(refuse("its answer has no tokens"));
    }
    if sample.prompt.len() + sample.answer.len() > MAX_SAMPLE_TOKENS {
        return Err(refuse("it has more than 1048576 tokens"));
    }
    let mut line = serde_json::to_vec(sample).map_err(|_| refuse("it is no JSON"))?;
    line.push(b'\n');
    if line.len() > MAX_LINE_BYTES {
        return Err(refuse("its line has more than 32 MiB"));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::run_settings::TrainingBase;

    fn sample(origin: &str) -> TrainingSampleLine {
        TrainingSampleLine {
            origin: origin.to_owned(),
            prompt: vec![1, 2],
            answer: vec![3, 4],
            messages: vec![TrainingMessage { role: "user".to_owned(), content: "Hi\nthere".to_owned() }],
            text: "Hello".to_owned(),
        }
    }

    fn settings() -> RunSettings {
        RunSettings::of(TrainingBase::Gguf("/base.gguf".into()))
    }

    #[test]
    fn a_run_is_written_in_the_order_of_its_samples() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("runs/1");
        let files = RunFiles::new(&run);
        let missing = files.write(&settings(), [sample("b:2")], [sample("c:1")]).unwrap_err();
        assert!(matches!(missing, RunFilesError::Io { .. }) && missing.is_passing(), "{missing}");
        assert!(!run.exists(), "a directory that was removed stays away");
        fs::create_dir_all(&run).unwrap();
        files.write(&settings(), [sample("b:2"), sample("a:1")], [sample("c:1")]).unwrap();
        let line = |origin: &str| {
            let message = r#"{"role":"user","content":"Hi\nthere"}"#;
            format!(r#"{{"origin":"{origin}","prompt":[1,2],"answer":[3,4],"messages":[{message}],"text":"Hello"}}"#)
        };
        let text = fs::read_to_string(run.join(TRAIN_FILE)).unwrap();
        assert_eq!(text.lines().collect::<Vec<_>>(), [line("b:2"), line("a:1")]);
        let written: RunSettings = serde_json::from_slice(&fs::read(run.join(SETTINGS_FILE)).unwrap()).unwrap();
        assert_eq!(written, settings());
        assert_eq!(fs::read_dir(&run).unwrap().count(), 3);
    }

    #[test]
    fn what_is_not_fit_to_be_trained_on_is_refused_and_leaves_no_settings() {
        let dir = tempfile::tempdir().unwrap();
        let files = RunFiles::new(dir.path());
        let error =
            |train: Vec<TrainingSampleLine>| files.write(&settings(), train, [sample("h:1")]).unwrap_err().to_string();
        assert!(error(Vec::new()).contains("train.jsonl: it would have no samples"));
        let no_answer = TrainingSampleLine { answer: Vec::new(), ..sample("mail.jsonl:3") };
        assert!(
            error(vec![sample("a:1"), no_answer]).contains("sample mail.jsonl:3 of the run: its answer has no tokens")
        );
        let long = TrainingSampleLine { prompt: vec![7; MAX_SAMPLE_TOKENS], ..sample("a:1") };
        assert!(error(vec![long]).contains("more than 1048576 tokens"));
        let mut invalid = settings();
        invalid.lora.rank = 0;
        let refused = files.write(&invalid, [sample("a:1")], [sample("h:1")]).unwrap_err();
        assert!(refused.to_string().contains("`lora.rank` must be from 1 to 512"), "{refused}");
        assert!(!refused.is_passing());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

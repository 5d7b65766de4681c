//! What goes wrong with runs.

use std::io;
use std::path::{Path, PathBuf};

use artel_peft::ConvertError;
use artel_trainer::{EventTailError, InterpreterError, InvalidSetting, RunFilesError, SetupError, TrainerStartError};

use crate::host::HostError;
use crate::run_id::RunId;

/// Why something could not be done with a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is none of this id.
    #[error("there is no training run `{0}`")]
    NoRun(String),
    /// The trainer is not there, or not as it should be.
    #[error("{0}")]
    NoTrainer(String),
    /// One run goes on at a time.
    #[error(
        "the training run `{0}` goes on, and one does at a time: wait for it, or stop it with `artel train stop {0}`"
    )]
    Busy(RunId),
    /// It has not ended.
    #[error("the training run `{0}` goes on: stop it first with `artel train stop {0}`")]
    Unended(RunId),
    /// It has made no adapter.
    #[error("the training run `{0}` has no adapter")]
    NoAdapter(RunId),
    /// There is nothing to train on, or to measure by.
    #[error("{0}")]
    Data(&'static str),
    /// A setting is not one that a trainer takes.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// The model cannot be trained so.
    #[error("{0}")]
    Base(String),
    /// The disk has too little space for what a run writes.
    #[error(
        "the disk of {} has {:.1} GB free, and a run needs {:.1} GB there, for a copy of the model in 16 bits while its adapter is \
         checked: make room, or put the daemon's data on another disk", .path.display(), gigabytes(*.free_bytes),
        gigabytes(*.needed_bytes)
    )]
    Space {
        /// Where runs are.
        path: PathBuf,
        /// What a run needs.
        needed_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// The disk refuses.
    #[error("failed to write {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The daemon ends.
    #[error("the daemon is ending")]
    Closing,
}

impl Error {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |source| Self::File { path: path.to_owned(), source }
    }
}

fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

/// A file of a run that cannot be written or removed.
#[derive(Debug)]
pub(crate) struct FileFailure {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

impl FileFailure {
    pub(crate) fn of(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self { path, source }
    }
}

/// Why a run has no adapter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunFailure {
    /// The tokens of samples cannot be had.
    #[error("failed to turn its samples into tokens: {0}")]
    Tokens(HostError),
    /// All samples of a kind were left out.
    #[error("{0}; `artel train show` lists what was left out and why")]
    NoSamples(&'static str),
    /// The files of the run cannot be written.
    #[error("failed to {0}")]
    Files(#[from] RunFilesError),
    /// A file cannot be read or written.
    #[error("failed to {what} {}: {source}", .path.display())]
    File {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The trainer's environment is not as it should be.
    #[error("failed to {0}")]
    Interpreter(#[from] InterpreterError),
    /// The trainer's source could not be written.
    #[error("failed to {0}")]
    Setup(#[from] SetupError),
    /// The trainer does not start.
    #[error("failed to {0}")]
    Start(#[from] TrainerStartError),
    /// What the trainer says cannot be read.
    #[error("failed to {0}")]
    Events(EventTailError),
    /// The trainer said why.
    #[error("{message}")]
    Trainer {
        /// In its words.
        message: String,
        /// Whether it may succeed later.
        is_passing: bool,
    },
    /// The trainer ends again and again.
    #[error("the trainer ended {times} times without getting further; the last time {reason}")]
    Stuck {
        /// How often.
        times: u32,
        /// How it ended.
        reason: String,
        /// Whether it once got as far as a checkpoint.
        has_checkpoint: bool,
    },
    /// The adapter cannot be converted.
    #[error("failed to convert its adapter to GGUF: {0}")]
    Convert(#[from] ConvertError),
    /// A loss cannot be measured.
    #[error("failed to measure its adapter under llama.cpp: {0}")]
    Measure(HostError),
    /// The adapter is another one under llama.cpp.
    #[error(
        "the adapter as GGUF is not the one that was trained: on the held-out answers llama.cpp has a loss of {checked:.4} nats per token \
         where the trainer has {trained:.4}; this is a fault of the conversion, so nothing was kept of it"
    )]
    LossDiffers {
        /// Under llama.cpp.
        checked: f64,
        /// Under the trainer.
        trained: f64,
    },
    /// The model's file is another one than when the samples were prepared.
    #[error(
        "the file {} has changed since the run began, so that its adapter would be of no model; start a new run", .0.display()
    )]
    ModelChanged(PathBuf),
    /// The loss is no number.
    #[error("the training has diverged: its loss is no number any more; lower `learning_rate` of `schedule`")]
    Diverged,
    /// The daemon ended before it could go on by itself.
    #[error("the daemon ended before the samples were written; start the run again")]
    Interrupted,
    /// A client asked for it.
    #[error("it was stopped")]
    Stopped,
    /// What it learns from is to be forgotten.
    #[error("it was stopped, since ratings that it learned from were erased; start a new run without them")]
    Erased,
    /// What it learned from is forgotten, and the reason may have quoted it.
    #[error("it failed for a reason that is not kept, since ratings that it learned from were erased")]
    Forgotten,
    /// A thread of ours has panicked.
    #[error("an internal error, which the daemon's log has")]
    Internal,
}

impl RunFailure {
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    /// Whether it may pass by itself, or by what its owner does elsewhere: the run then waits, and keeps what it has.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Tokens(error) | Self::Measure(error) => matches!(error, HostError::Unavailable(_)),
            Self::File { .. } => true,
            Self::Files(error) => error.is_passing(),
            Self::Interpreter(error) => error.is_passing(),
            Self::Setup(error) => error.is_passing(),
            Self::Start(error) => error.is_passing(),
            Self::Events(error) => error.is_passing(),
            Self::Trainer { is_passing, .. } => *is_passing,
            // Nothing is lost of a run without a checkpoint.
            Self::Stuck { has_checkpoint, .. } => *has_checkpoint,
            Self::Convert(error) => matches!(error, ConvertError::Read { .. } | ConvertError::Write { .. }),
            Self::NoSamples(_)
            | Self::LossDiffers { .. }
            | Self::ModelChanged(_)
            | Self::Diverged
            | Self::Interrupted
            | Self::Stopped
            | Self::Erased
            | Self::Forgotten
            | Self::Internal => false,
        }
    }
}

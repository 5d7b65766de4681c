//! The trainer: the Python environment that it needs, its process, and the files of a run.
//!
//! The trainer is a Python package whose source travels inside this binary ([`TrainerSource`]). [`Environment`] installs what the
//! package needs below a directory of the daemon, by the package's lock. A run is a directory: [`RunFiles`] writes its settings
//! and samples, [`TrainerProcess`] trains from it, and its [`TrainerEvent`]s are read from a file in it, so that a daemon that was
//! started again goes on where it stopped reading.
//!
//! This crate knows nothing of gRPC, engines or roles: not what is trained, nor what becomes of it. It decides nothing.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod disk;
mod environment;
mod event_tail;
mod installed_package;
mod interpreter;
mod output_tail;
mod process_group;
mod python;
mod run_files;
mod run_settings;
mod setup;
mod setup_error;
mod stamp;
mod tool;
mod trainer_event;
mod trainer_outcome;
mod trainer_process;
mod trainer_source;
mod variables;

pub use environment::{Environment, EnvironmentOptions, EnvironmentState, ReadyEnvironment};
pub use event_tail::{EVENTS_FILE, EventTail, EventTailError, TailedEvent};
pub use installed_package::InstalledPackage;
pub use interpreter::{Interpreter, InterpreterError};
pub use python::PythonVersion;
pub use run_files::{
    HELD_OUT_FILE, RunFiles, RunFilesError, SETTINGS_FILE, TRAIN_FILE, TrainingMessage, TrainingSampleLine,
};
pub use run_settings::{InvalidSetting, RunSettings, ScheduleSettings, TrainerLora, TrainerTargets, TrainingBase};
pub use setup::SetupProgress;
pub use setup_error::SetupError;
pub use trainer_event::{FailureKind, TrainerEvent, TrainerFailure, TrainerVersions};
pub use trainer_outcome::TrainerOutcome;
pub use trainer_process::{TrainerProcess, TrainerStartError};
pub use trainer_source::TrainerSource;

//! The interpreter that trains.

use std::fs::File;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::environment::{Environment, EnvironmentState};
use crate::setup_error::SetupError;
use crate::variables::{self, Variables};

/// What holds for every training: no network, no telemetry, and no module from elsewhere.
const SETTINGS: [(&str, &str); 9] = [
    ("PYTHONNOUSERSITE", "1"),
    // Without it, a file of the working directory could stand for a module.
    ("PYTHONSAFEPATH", "1"),
    ("PYTHONUNBUFFERED", "1"),
    // The directory of the source holds the source alone.
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("HF_HUB_OFFLINE", "1"),
    ("TRANSFORMERS_OFFLINE", "1"),
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("DO_NOT_TRACK", "1"),
    ("TOKENIZERS_PARALLELISM", "false"),
];

/// An interpreter with the trainer and its packages. While one is held, no setup changes them.
#[derive(Debug)]
pub struct Interpreter {
    python: PathBuf,
    variables: Variables,
    _lock: File,
}

/// Why there is no interpreter to train with.
#[derive(Debug, thiserror::Error)]
pub enum InterpreterError {
    /// The environment is not made, not whole, or of another version.
    #[error("train with the environment in {}: {}; run `artel train setup`", path.display(), why(state))]
    NotReady {
        /// The directory of the environment.
        path: PathBuf,
        /// Its state.
        state: EnvironmentState,
    },
    /// It is being changed, could not be read or written, or is an existing interpreter that does not fit.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

impl InterpreterError {
    /// Whether a training that is left as it is may begin later: always, since its environment is mended without it.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NotReady { .. } => true,
            Self::Setup(error) => error.is_passing(),
        }
    }
}

fn why(state: &EnvironmentState) -> &str {
    match state {
        EnvironmentState::Missing => "it is not set up",
        EnvironmentState::Incomplete { reason } => reason,
        EnvironmentState::Ready(_) => "it is ready",
        EnvironmentState::Outdated { .. } => "it is of another version of this program",
    }
}

impl Environment {
    /// The interpreter to train with.
    ///
    /// # Errors
    /// The environment is not ready, or a setup changes it.
    pub async fn interpreter(&self) -> Result<Interpreter, InterpreterError> {
        let options = self.options();
        let busy = || SetupError::Busy { path: options.directory.clone() };
        if options.existing.is_some() && !options.source.is_in(&self.source_path()) {
            let _alone = self.lock(false).await?.ok_or_else(busy)?;
            self.write_source()?;
        }
        let lock = self.lock(true).await?.ok_or_else(busy)?;
        // Locked before, so that it stays as it is found.
        match self.inspect().await {
            EnvironmentState::Ready(_) => {}
            EnvironmentState::Incomplete { reason } if options.existing.is_some() => {
                return Err(SetupError::Existing { reason }.into());
            }
            state => return Err(InterpreterError::NotReady { path: options.directory.clone(), state }),
        }
        let python = options.existing.clone().unwrap_or_else(|| self.python_path());
        Ok(Interpreter { python, variables: self.training_variables(), _lock: lock })
    }

    /// The variables of a training.
    pub(crate) fn training_variables(&self) -> Variables {
        let mut variables = variables::for_training(std::env::vars_os());
        variables.extend(SETTINGS.map(|(name, value)| (name.into(), value.into())));
        variables.push(("PYTHONPATH".into(), self.source_path().into()));
        // Transformers makes directories in it, and the daemon's home may be read-only.
        variables.push(("HF_HOME".into(), self.options().directory.join("huggingface").into()));
        variables
    }
}

impl Interpreter {
    /// The command that runs a verb of the trainer on a run's directory.
    pub(crate) fn command(&self, verb: &str, run: &Path) -> Command {
        let mut command = Command::new(&self.python);
        command.args(["-m", "artel_trainer", verb]).arg(run).current_dir(run);
        command.env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

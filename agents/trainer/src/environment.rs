//! The Python environment of the trainer: a directory, and what state it is in.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::installed_package::InstalledPackage;
use crate::python::{self, PythonRefusal, PythonVersion};
use crate::setup_error::SetupError;
use crate::stamp::Stamp;
use crate::trainer_source::TrainerSource;

/// What the official packages of the lock take on Linux, where torch comes with the libraries of CUDA: measured with the
/// lock of torch 2.15.0 on x86-64, 6.0 GB with uv itself and never more meanwhile, and some more for another Python.
const LINUX_BYTES: u64 = 6_200_000_000;
/// What they take elsewhere, where torch comes without: 1.2 GB of torch and 0.5 GB of the others, measured with an
/// environment from which the libraries of CUDA were left out.
const OTHER_BYTES: u64 = 1_800_000_000;
/// What stays free on the disk: the daemon's journal may be on it.
const RESERVED_BYTES: u64 = 512 << 20;
/// The time in which something must be written or said: uv gives up a connection that sends nothing after 30 s and tries three
/// times, so longer than this it hangs.
const STALL_TIMEOUT: Duration = Duration::from_secs(600);
/// The time for the processes of a setup that was cancelled to be gone.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// The interval at which a lock that is held is tried.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// The dependencies in the trainer's `pyproject.toml`: what these need comes with them.
const REQUIRED_PACKAGES: [&str; 8] =
    ["accelerate", "datasets", "gguf", "peft", "safetensors", "torch", "transformers", "trl"];

/// Where the environment lies, and how it is made.
#[derive(Debug, Clone)]
pub struct EnvironmentOptions {
    /// The directory of the environment, which need not be there yet.
    pub directory: PathBuf,
    /// The package of the trainer.
    pub source: TrainerSource,
    /// An interpreter that has the packages already: nothing is installed then.
    pub existing: Option<PathBuf>,
    /// The packages that such an interpreter must have.
    pub required_packages: Vec<String>,
    /// The program uv to install packages with; it is installed if none is given.
    pub uv: Option<PathBuf>,
    /// What the packages take on the disk, at most.
    pub needed_bytes: u64,
    /// What stays free on the disk; a setup that would leave less is ended.
    pub reserved_bytes: u64,
    /// The time in which a program that installs must write or say something.
    pub stall_timeout: Duration,
}

impl EnvironmentOptions {
    /// The official packages below a directory, installed by what is found on this machine.
    pub fn below(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            source: TrainerSource::embedded(),
            existing: None,
            required_packages: REQUIRED_PACKAGES.map(str::to_owned).to_vec(),
            uv: None,
            needed_bytes: if cfg!(target_os = "linux") { LINUX_BYTES } else { OTHER_BYTES },
            reserved_bytes: RESERVED_BYTES,
            stall_timeout: STALL_TIMEOUT,
        }
    }
}

/// The state of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvironmentState {
    /// Nothing of it is there.
    Missing,
    /// A setup did not end, or something was removed since.
    Incomplete {
        /// What is not as it should be.
        reason: String,
    },
    /// A training can be run.
    Ready(ReadyEnvironment),
    /// It is whole, but of another version of this program.
    Outdated {
        /// Whether packages may have to be fetched. If not, a setup takes a moment and no network.
        needs_packages: bool,
    },
}

/// An environment that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyEnvironment {
    /// The version of its interpreter.
    pub python: PythonVersion,
    /// Its packages, in the order of their names; of an existing interpreter, those that it must have.
    pub packages: Vec<InstalledPackage>,
    /// What the directory takes on the disk. For an existing interpreter this is 0: it lies elsewhere.
    pub bytes: u64,
}

/// The Python environment of the trainer, below a directory.
#[derive(Debug, Clone)]
pub struct Environment {
    options: EnvironmentOptions,
}

impl Environment {
    /// The environment with these options. Nothing is read or written yet.
    pub fn new(options: EnvironmentOptions) -> Self {
        Self { options }
    }

    /// Its options.
    pub fn options(&self) -> &EnvironmentOptions {
        &self.options
    }

    /// What state it is in. Runs the interpreter only if that is an existing one.
    pub async fn inspect(&self) -> EnvironmentState {
        if let Some(existing) = &self.options.existing {
            return self.inspect_existing(existing).await;
        }
        let Some(stamp) = Stamp::read(&self.stamp_path()) else {
            let parts = [self.packages_path(), self.tool_path(), self.source_path(), self.cache_path()];
            return if parts.iter().any(|path| path.exists()) {
                EnvironmentState::Incomplete { reason: "a setup began and did not end".to_owned() }
            } else {
                EnvironmentState::Missing
            };
        };
        // It links to the interpreter that it was made with, which an upgrade of the system may remove.
        if !self.python_path().exists() {
            let reason = format!("its interpreter {} is gone", self.python_path().display());
            return EnvironmentState::Incomplete { reason };
        }
        let source = &self.options.source;
        if stamp.requirements != source.requirements_hash() {
            return EnvironmentState::Outdated { needs_packages: true };
        }
        if stamp.source != source.hash() || !source.is_in(&self.source_path()) {
            return EnvironmentState::Outdated { needs_packages: false };
        }
        EnvironmentState::Ready(ReadyEnvironment { python: stamp.python, packages: stamp.packages, bytes: stamp.bytes })
    }

    /// Asks an existing interpreter what it is, and which of the packages it has where a training looks for them.
    async fn inspect_existing(&self, path: &Path) -> EnvironmentState {
        let unfit = |why: String| EnvironmentState::Incomplete {
            reason: format!("the interpreter {} of `trainer_python`: {why}, or leave out the setting", path.display()),
        };
        let variables = self.training_variables();
        let found = async {
            let python = python::ask(path, &variables).await?.version;
            Ok::<_, PythonRefusal>((python, python::packages(path, &self.options.required_packages, &variables).await?))
        };
        let (python, packages) = match found.await {
            Ok(found) => found,
            Err(why) => return unfit(format!("{why}; name another one")),
        };
        let has = |name: &&String| packages.iter().any(|package| package.name == **name);
        let missing: Vec<&str> =
            self.options.required_packages.iter().filter(|name| !has(name)).map(String::as_str).collect();
        if !missing.is_empty() {
            return unfit(format!("it lacks {}; install what is missing there", missing.join(", ")));
        }
        EnvironmentState::Ready(ReadyEnvironment { python, packages, bytes: 0 })
    }

    /// Locks it against all others, or, if it is shared, against those that change it. None if another holds the lock.
    ///
    /// # Errors
    /// The lock cannot be made.
    pub(crate) async fn lock(&self, is_shared: bool) -> Result<Option<File>, SetupError> {
        let path = self.options.directory.join("lock");
        let failed = || SetupError::io("lock", &path);
        fs::create_dir_all(&self.options.directory).map_err(failed())?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed())?;
        let deadline = tokio::time::Instant::now() + LOCK_TIMEOUT;
        loop {
            match if is_shared { file.try_lock_shared() } else { file.try_lock() } {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::Error(error)) => return Err(failed()(error)),
                Err(TryLockError::WouldBlock) if tokio::time::Instant::now() >= deadline => return Ok(None),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_INTERVAL).await,
            }
        }
    }

    /// Makes the directory of the source hold the source.
    pub(crate) fn write_source(&self) -> Result<(), SetupError> {
        let path = self.source_path();
        let failed = |e: io::Error| SetupError::io("write the trainer's source to", &path)(e);
        if self.options.source.is_in(&path) { Ok(()) } else { self.options.source.write_to(&path).map_err(failed) }
    }

    /// The directory of the package's source.
    pub(crate) fn source_path(&self) -> PathBuf {
        self.options.directory.join("source")
    }

    /// The virtual environment with the packages.
    pub(crate) fn packages_path(&self) -> PathBuf {
        self.options.directory.join("environment")
    }

    /// The interpreter with the packages.
    pub(crate) fn python_path(&self) -> PathBuf {
        self.packages_path().join("bin/python")
    }

    /// The virtual environment with uv.
    pub(crate) fn tool_path(&self) -> PathBuf {
        self.options.directory.join("tool")
    }

    /// What uv has fetched.
    pub(crate) fn cache_path(&self) -> PathBuf {
        self.options.directory.join("cache")
    }

    /// What a setup writes last.
    pub(crate) fn stamp_path(&self) -> PathBuf {
        self.options.directory.join("stamp.json")
    }
}

//! Makes the environment, or goes on where an earlier setup ended.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::disk::{self, DirUsage};
use crate::environment::{Environment, EnvironmentState, ReadyEnvironment};
use crate::python::{self, FoundPython};
use crate::setup_error::SetupError;
use crate::stamp::{Stamp, installed_packages};
use crate::tool;
use crate::trainer_source::{LOCK_FILE, remove_dir};
use crate::variables::{self, Variables};

/// The version of uv that installs the packages: the one that wrote the lock.
const UV_VERSION: &str = "0.13.9";
/// The interval at which the directory is measured and progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// The time for uv to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);

/// How far a setup is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupProgress {
    /// What is being done, in words.
    pub step: String,
    /// What the directory takes on the disk.
    pub bytes_on_disk: u64,
}

impl Environment {
    /// Makes the environment ready: does what is still to do, and nothing if it is ready. `progress` is told of each step, and
    /// every few seconds. Cancelling ends it with all programs that it started, and so does dropping the future; another setup
    /// then goes on where this one ended.
    ///
    /// # Errors
    /// Another setup or a training uses the environment, something that it needs is not there, or a program failed.
    pub async fn setup(
        &self,
        progress: impl Fn(SetupProgress) + Send + Sync,
        cancel: &CancellationToken,
    ) -> Result<ReadyEnvironment, SetupError> {
        let setup = async {
            let busy = || SetupError::Busy { path: self.options().directory.clone() };
            let lock = self.lock(false).await?.ok_or_else(busy)?;
            let told = Told { step: String::new(), usage: DirUsage::default(), changed: Instant::now() };
            RunningSetup { environment: self, progress, lock, told: Mutex::new(told) }.run().await
        };
        cancel.run_until_cancelled(setup).await.unwrap_or(Err(SetupError::Cancelled))
    }
}

/// A setup that holds the lock.
struct RunningSetup<'e, P> {
    environment: &'e Environment,
    progress: P,
    lock: File,
    told: Mutex<Told>,
}

/// What was told last.
struct Told {
    step: String,
    usage: DirUsage,
    /// When something was said or written last.
    changed: Instant,
}

impl<P: Fn(SetupProgress) + Send + Sync> RunningSetup<'_, P> {
    async fn run(&self) -> Result<ReadyEnvironment, SetupError> {
        match self.environment.inspect().await {
            EnvironmentState::Ready(ready) => {
                self.environment.write_source()?;
                return Ok(ready);
            }
            EnvironmentState::Incomplete { reason } if self.environment.options().existing.is_some() => {
                return Err(SetupError::Existing { reason });
            }
            EnvironmentState::Outdated { needs_packages: false } => self.environment.write_source()?,
            _ => self.install().await?,
        }
        self.finish().await
    }

    async fn install(&self) -> Result<(), SetupError> {
        let environment = self.environment;
        // From here on it is not whole.
        let stamp = environment.stamp_path();
        match std::fs::remove_file(&stamp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(SetupError::io("remove", stamp)(error));
            }
            _ => {}
        }
        self.say("find Python");
        let (python, is_made) = self.python().await?;
        self.check_space().await?;
        environment.write_source()?;
        let uv = self.uv(&python).await?;
        let packages = environment.packages_path();
        if !is_made {
            let mut command = self.uv_command(&uv, &python);
            command.args(["venv", "--clear", "--python"]).arg(&python.path).arg(&packages);
            self.execute("make the virtual environment", command).await?;
        }
        // The lock is a list of packages with their hashes. One of `uv lock` says where each lies as well, so that an owner's mirror would
        // not work.
        let list = environment.source_path().join(LOCK_FILE);
        let mut command = self.uv_command(&uv, &python);
        // Built packages alone: the build of another would run code that no hash covers, and need compilers.
        command.args(["pip", "sync", "--require-hashes", "--no-build", "--python"]);
        command.arg(environment.python_path()).arg(&list);
        self.execute("install the packages", command).await
    }

    /// Stamps what is installed.
    async fn finish(&self) -> Result<ReadyEnvironment, SetupError> {
        let environment = self.environment;
        let options = environment.options();
        let variables = variables::for_programs(std::env::vars_os());
        let path = environment.python_path();
        let found = python::ask(&path, &variables).await;
        let found = found.map_err(|why| SetupError::NoPython { tried: vec![format!("{}: {why}", path.display())] })?;
        let cache = environment.cache_path();
        // All that is in it has a second name in the environment by now, and an upgrade would leave the old packages there.
        remove_dir(&cache).map_err(SetupError::io("remove", &cache))?;
        let bytes = self.measure().await.bytes;
        let packages = installed_packages(&environment.packages_path());
        let (requirements, source) = (options.source.requirements_hash(), options.source.hash());
        let path = environment.stamp_path();
        let stamp = Stamp::new(requirements, source, found.version, packages.clone(), bytes);
        stamp.write(&path).map_err(SetupError::io("write", &path))?;
        self.say("ready");
        Ok(ReadyEnvironment { python: found.version, packages, bytes })
    }

    /// The interpreter to make the environment with, and whether the environment is made with it already.
    async fn python(&self) -> Result<(FoundPython, bool), SetupError> {
        let variables = variables::for_programs(std::env::vars_os());
        if let Ok(own) = python::ask(&self.environment.python_path(), &variables).await {
            // Another that is newer is no reason to fetch all packages again.
            return Ok((own, true));
        }
        let found = python::find(&variables).await.map_err(|tried| SetupError::NoPython { tried })?;
        Ok((found, false))
    }

    /// Says what is still needed before anything is fetched.
    async fn check_space(&self) -> Result<(), SetupError> {
        let options = self.environment.options();
        let present = self.measure().await;
        let needed_bytes = options.needed_bytes.saturating_sub(present.bytes).saturating_add(options.reserved_bytes);
        match artel_files::free_bytes(&options.directory) {
            Some(free_bytes) if free_bytes < needed_bytes => {
                Err(SetupError::TooLittleSpace { path: options.directory.clone(), needed_bytes, free_bytes })
            }
            _ => Ok(()),
        }
    }

    /// The program uv, which is installed if none is given.
    async fn uv(&self, python: &FoundPython) -> Result<std::path::PathBuf, SetupError> {
        if let Some(given) = &self.environment.options().uv {
            return Ok(given.clone());
        }
        let tool = self.environment.tool_path();
        let uv = tool.join("bin/uv");
        let mut command = Command::new(&uv);
        command.arg("--version").env_clear();
        let answer = tool::ask(command, VERSION_TIMEOUT).await.ok().flatten().unwrap_or_default();
        if answer.split_whitespace().nth(1) == Some(UV_VERSION) {
            return Ok(uv);
        }
        if !python.has_pip {
            return Err(SetupError::NoVenv { python: python.path.clone() });
        }
        let mut command = Command::new(&python.path);
        command.args(["-m", "venv", "--clear"]).arg(&tool).env_clear().envs(installer_variables());
        self.execute("make a virtual environment for uv", command).await?;
        let mut command = Command::new(tool.join("bin/python"));
        command.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:"]);
        command.arg("--no-cache-dir").arg(format!("uv=={UV_VERSION}")).env_clear().envs(installer_variables());
        self.execute("install uv", command).await?;
        Ok(uv)
    }

    fn uv_command(&self, uv: &Path, python: &FoundPython) -> Command {
        let mut command = Command::new(uv);
        command.env_clear().envs(installer_variables());
        command.env("UV_PYTHON_DOWNLOADS", "never").env("UV_PYTHON", &python.path);
        command.env("UV_CACHE_DIR", self.environment.cache_path()).env("UV_LINK_MODE", "hardlink");
        command.env("UV_NO_PROGRESS", "1").env("NO_COLOR", "1");
        command
    }

    /// Runs a program; it is ended if it hangs or fills the disk.
    async fn execute(&self, step: &'static str, mut command: Command) -> Result<(), SetupError> {
        let directory = &self.environment.options().directory;
        self.say(step);
        command.current_dir(directory);
        // What is started holds the lock through its standard input, so that a setup after the death of this process does not
        // run beside it.
        let lock = self.lock.try_clone().map_err(SetupError::io("lock", directory))?;
        let on_line = |line: &str| self.say(&format!("{step}: {line}"));
        let running = tool::run(command, Stdio::from(lock), on_line);
        let end = tokio::select! {
            end = running => end.map_err(SetupError::io(step, directory))?,
            error = self.watch(step) => return Err(error),
        };
        if end.status.success() { Ok(()) } else { Err(SetupError::of_program(step, directory.clone(), &end)) }
    }

    /// Tells progress until a program has done nothing for too long or the disk is nearly full.
    async fn watch(&self, step: &'static str) -> SetupError {
        let options = self.environment.options();
        self.told().changed = Instant::now();
        let mut interval = tokio::time::interval(PROGRESS_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.measure().await;
            self.tell();
            if artel_files::free_bytes(&options.directory).is_some_and(|free| free < options.reserved_bytes) {
                return SetupError::DiskFull { path: options.directory.clone() };
            }
            if self.told().changed.elapsed() >= options.stall_timeout {
                return SetupError::Stalled { step, after: options.stall_timeout };
            }
        }
    }

    async fn measure(&self) -> DirUsage {
        let directory = self.environment.options().directory.clone();
        // Fails only if the runtime ends.
        let usage = tokio::task::spawn_blocking(move || disk::usage(&directory)).await.unwrap_or_default();
        let mut told = self.told();
        if told.usage != usage {
            told.usage = usage;
            told.changed = Instant::now();
        }
        usage
    }

    fn say(&self, step: &str) {
        let mut told = self.told();
        step.clone_into(&mut told.step);
        told.changed = Instant::now();
        drop(told);
        self.tell();
    }

    fn tell(&self) {
        let told = self.told();
        let progress = SetupProgress { step: told.step.clone(), bytes_on_disk: told.usage.bytes };
        drop(told);
        (self.progress)(progress);
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn installer_variables() -> Variables {
    variables::for_installers(std::env::vars_os())
}

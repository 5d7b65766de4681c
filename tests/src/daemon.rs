//! Starting and stopping the daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use artel_proto::v1::catalog_client::CatalogClient;
use artel_proto::v1::engines_client::EnginesClient;
use artel_proto::v1::router_client::RouterClient;
use artel_proto::v1::tasks_client::TasksClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tonic::transport::Channel;

use crate::cli::{Cli, artel, rehearsal};

/// The directory of the demo models; `cargo xtask test` sets it.
pub fn models() -> PathBuf {
    let dir = std::env::var_os("ARTEL_TEST_MODELS").map(PathBuf::from);
    dir.expect("ARTEL_TEST_MODELS is not set: run these tests with `cargo xtask test`")
}

/// A daemon that is not started yet.
pub fn daemon() -> Builder {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("catalog")).unwrap();
    let settings = "grace: 60s\n".to_owned();
    Builder {
        dir: Arc::new(dir),
        settings,
        program: artel,
        death: None,
        models: models(),
        env: Vec::new(),
        largest_file: None,
    }
}

/// What a daemon is started with.
pub struct Builder {
    dir: Arc<TempDir>,
    settings: String,
    program: fn() -> PathBuf,
    death: Option<String>,
    models: PathBuf,
    env: Vec<(String, String)>,
    largest_file: Option<u64>,
}

impl Builder {
    /// With these documents over the shipped catalog.
    #[must_use]
    pub fn with_yaml(self, yaml: &str) -> Self {
        fs::write(self.dir.path().join("catalog/test.yaml"), yaml).unwrap();
        self
    }

    /// With a file beside the catalog's YAML, such as a broken GGUF.
    #[must_use]
    pub fn with_file(self, name: &str, bytes: &[u8]) -> Self {
        fs::write(self.dir.path().join("catalog").join(name), bytes).unwrap();
        self
    }

    /// With a file in its data directory, such as an older version's journal.
    #[must_use]
    pub fn with_data(self, name: &str, bytes: &[u8]) -> Self {
        fs::create_dir_all(self.dir.path().join("data")).unwrap();
        fs::write(self.dir.path().join("data").join(name), bytes).unwrap();
        self
    }

    /// With these settings instead of a grace of 60 s.
    #[must_use]
    pub fn with_settings(mut self, settings: &str) -> Self {
        self.settings = settings.to_owned();
        self
    }

    /// The binary whose models may be scripts, such as this one of the catalog's model `talk.script`.
    #[must_use]
    pub fn in_rehearsal(mut self, script: &serde_json::Value) -> Self {
        self.program = rehearsal;
        self.with_file("talk.script", script.to_string().as_bytes())
    }

    /// Kills itself at a commit: `before:N` or `after:N`. Only in rehearsal.
    #[must_use]
    pub fn that_dies(mut self, death: &str) -> Self {
        self.death = Some(death.to_owned());
        self
    }

    /// With a directory of models of its own, `models` in its directory, in which there are none yet.
    #[must_use]
    pub fn without_models(mut self) -> Self {
        self.models = self.dir.path().join("models");
        self
    }

    /// With a variable of the environment.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a limit of its files, in bytes: a disk that is full for each of them, until [`Daemon::make_room`].
    #[must_use]
    pub fn with_files_of(mut self, bytes: u64) -> Self {
        self.largest_file = Some(bytes);
        self
    }

    /// The program under its limits.
    fn command(&self) -> Command {
        let program = (self.program)();
        let Some(bytes) = self.largest_file else { return Command::new(program) };
        let mut command = Command::new("prlimit");
        command.arg(format!("--fsize={bytes}:")).arg("--").arg(program);
        command
    }

    /// Starts it and waits until it listens.
    pub async fn start(self) -> Daemon {
        let log = self.dir.path().join("log");
        match self.try_start().await {
            Ok(daemon) => daemon,
            Err(_) => panic!("the daemon did not start: {}", fs::read_to_string(log).unwrap()),
        }
    }

    /// Starts it and waits until it listens, or gives what to start anew if it ended before.
    pub async fn try_start(self) -> Result<Daemon, Self> {
        let settings = self.dir.path().join("settings.yaml");
        fs::write(&settings, &self.settings).unwrap();
        let dir = self.dir.path();
        let log = fs::File::options().append(true).create(true).open(dir.join("log")).unwrap();
        let mut command = self.command();
        command
            .env_remove("ARTEL_REHEARSAL_DEATH")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs(self.death.as_ref().map(|death| ("ARTEL_REHEARSAL_DEATH", death)));
        let mut child = command
            .args(["serve", "--json", "--listen", "127.0.0.1:0"])
            .arg("--config")
            .arg(&settings)
            .arg("--data")
            .arg(dir.join("data"))
            .arg("--catalog")
            .arg(dir.join("catalog"))
            .arg("--models")
            .arg(&self.models)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(line) = lines.next_line().await.unwrap() else {
            child.wait().await.unwrap();
            return Err(Self { death: None, ..self });
        };
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = format!("http://{}", ready["listening"].as_str().unwrap());
        let channel = Channel::from_shared(address.clone()).unwrap().connect_lazy();
        Ok(Daemon { child, dir: self.dir, settings: self.settings, program: self.program, address, channel })
    }
}

/// A daemon that runs. Dropping it kills it.
pub struct Daemon {
    child: Child,
    dir: Arc<TempDir>,
    settings: String,
    program: fn() -> PathBuf,
    /// Where it listens, as `http://127.0.0.1:PORT`.
    pub address: String,
    channel: Channel,
}

impl Daemon {
    /// A client of `Tasks`.
    pub fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    /// A client of `Catalog`.
    pub fn catalog(&self) -> CatalogClient<Channel> {
        CatalogClient::new(self.channel.clone())
    }

    /// A client of `Router`.
    pub fn router(&self) -> RouterClient<Channel> {
        RouterClient::new(self.channel.clone())
    }

    /// A client of `Engines`.
    pub fn engines(&self) -> EnginesClient<Channel> {
        EnginesClient::new(self.channel.clone())
    }

    /// The connection.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Its directory: `catalog`, `data`, `log`, `settings.yaml`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The command line, aimed at this daemon.
    pub fn cli<const N: usize>(&self, args: [&str; N]) -> Cli {
        Cli::new(args).env("ARTEL_ADDRESS", &self.address)
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id().cast_signed()), signal).unwrap();
    }

    /// Ends the limit of its files.
    pub async fn make_room(&self) {
        let pid = self.id().to_string();
        let status = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status().await.unwrap();
        assert!(status.success(), "{status}");
    }

    /// Waits until its process has ended.
    pub async fn exit(&mut self) -> ExitStatus {
        self.child.wait().await.unwrap()
    }

    /// Starts it again on the same directory, after it has ended.
    pub async fn again(self) -> Self {
        self.after_its_end().await.start().await
    }

    /// What to start anew on the same directory, once it has ended.
    pub async fn after_its_end(mut self) -> Builder {
        self.exit().await;
        let (dir, settings, program) = (self.dir.clone(), self.settings.clone(), self.program);
        Builder { dir, settings, program, death: None, models: models(), env: Vec::new(), largest_file: None }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the daemon's log, its last lines ---");
            tail.into_iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

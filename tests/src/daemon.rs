//! Starting and stopping the daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use artel_proto::v1;
use artel_proto::v1::access_client::AccessClient;
use artel_proto::v1::catalog_client::CatalogClient;
use artel_proto::v1::engines_client::EnginesClient;
use artel_proto::v1::models_client::ModelsClient;
use artel_proto::v1::router_client::RouterClient;
use artel_proto::v1::tasks_client::TasksClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tonic::transport::Channel;

use crate::Cli;
use crate::caller::{CallerChannel, TokenHeader};
use crate::prerequisites::{artel, artel_failpoints, models};

/// Lines of the log that are printed with a failed test.
const LOG_TAIL_LINES: usize = 60;

/// No test waits longer for a line of the log.
const LOG_TIMEOUT: Duration = Duration::from_secs(60);

/// A daemon that is not started yet.
pub fn daemon() -> DaemonBuilder {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("catalog")).unwrap();
    let settings = "grace: 60s\n".to_owned();
    DaemonBuilder {
        dir: Arc::new(dir),
        settings,
        program: artel,
        failpoint: None,
        models: models(),
        env: Vec::new(),
        file_size_limit_bytes: None,
        descriptor_limit: None,
        has_unread_log: false,
    }
}

/// The options of a daemon.
pub struct DaemonBuilder {
    dir: Arc<TempDir>,
    settings: String,
    program: fn() -> PathBuf,
    /// A variable of `artel-failpoints`, and its value.
    failpoint: Option<(&'static str, String)>,
    models: PathBuf,
    env: Vec<(String, String)>,
    file_size_limit_bytes: Option<u64>,
    descriptor_limit: Option<u32>,
    has_unread_log: bool,
}

impl DaemonBuilder {
    /// The directory of the daemon, as in [`Daemon::dir`].
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

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

    /// With a file in its data directory, such as the journal of an older version.
    #[must_use]
    pub fn with_data(self, name: &str, bytes: &[u8]) -> Self {
        fs::create_dir_all(self.dir.path().join("data")).unwrap();
        fs::write(self.dir.path().join("data").join(name), bytes).unwrap();
        self
    }

    /// With these settings instead of a grace period of 60 s.
    #[must_use]
    pub fn with_settings(mut self, settings: &str) -> Self {
        self.settings = settings.to_owned();
        self
    }

    /// The binary with failpoints and scripted models; this is the script of the catalog's `talk.script`.
    #[must_use]
    pub fn with_failpoints(mut self, script: &serde_json::Value) -> Self {
        self.program = artel_failpoints;
        self.with_file("talk.script", script.to_string().as_bytes())
    }

    /// It kills itself at a commit: `before:N` or `after:N`. Needs [`DaemonBuilder::with_failpoints`].
    #[must_use]
    pub fn killed_at(mut self, failpoint: &str) -> Self {
        self.failpoint = Some(("ARTEL_REHEARSAL_DEATH", failpoint.to_owned()));
        self
    }

    /// A fault at a commit, once and not after a restart: `before:N=FAULT` or `after:N=FAULT`, where FAULT is `kill`, `hang`,
    /// `full`, `ioerr` or `panic`. Needs [`DaemonBuilder::with_failpoints`].
    #[must_use]
    pub fn with_fault_at(mut self, failpoint: &str) -> Self {
        self.failpoint = Some(("ARTEL_FAILPOINT", failpoint.to_owned()));
        self
    }

    /// With an empty directory of models of its own, `models` in its directory.
    #[must_use]
    pub fn without_models(mut self) -> Self {
        self.models = self.dir.path().join("models");
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a limit of the size of each file: the disk is full for it until [`Daemon::lift_file_size_limit`].
    #[must_use]
    pub fn with_file_size_limit(mut self, bytes: u64) -> Self {
        self.file_size_limit_bytes = Some(bytes);
        self
    }

    /// With a limit of open files, which it cannot raise.
    #[must_use]
    pub fn with_descriptor_limit(mut self, descriptors: u32) -> Self {
        self.descriptor_limit = Some(descriptors);
        self
    }

    /// With a log that goes to a pipe, which nothing reads before [`Daemon::unread_log`].
    #[must_use]
    pub fn with_unread_log(mut self) -> Self {
        self.has_unread_log = true;
        self
    }

    /// The program, under its limits.
    fn command(&self) -> Command {
        let program = (self.program)();
        let file_size = self.file_size_limit_bytes.map(|bytes| format!("--fsize={bytes}:"));
        let descriptors = self.descriptor_limit.map(|descriptors| format!("--nofile={descriptors}:{descriptors}"));
        let limits: Vec<String> = file_size.into_iter().chain(descriptors).collect();
        if limits.is_empty() {
            return Command::new(program);
        }
        let mut command = Command::new("prlimit");
        command.args(limits).arg("--").arg(program);
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

    /// Starts it and sends SIGTERM once this is in its log, although it does not listen yet; how it exits, and its log.
    pub async fn terminate_at_start(self, logged: &str) -> (ExitStatus, String) {
        let mut child = self.spawn();
        let log = || fs::read_to_string(self.dir.path().join("log")).unwrap();
        while !log().contains(logged) {
            tokio::task::yield_now().await;
        }
        kill(Pid::from_raw(child.id().expect("it runs").cast_signed()), Signal::SIGTERM).unwrap();
        (child.wait().await.unwrap(), log())
    }

    /// Starts it and waits until it listens; if it exits before, returns the builder for another start.
    pub async fn try_start(self) -> Result<Daemon, Self> {
        let mut child = self.spawn();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(line) = lines.next_line().await.unwrap() else {
            child.wait().await.unwrap();
            return Err(Self { failpoint: None, ..self });
        };
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = format!("http://{}", ready["listening"].as_str().unwrap());
        let channel = Channel::from_shared(address.clone()).unwrap().connect_lazy();
        let token = fs::read_to_string(self.dir.path().join("data/token")).unwrap();
        let (dir, settings, program) = (self.dir, self.settings, self.program);
        Ok(Daemon { child, dir, settings, program, address, channel, token })
    }

    /// Starts it.
    fn spawn(&self) -> Child {
        let settings = self.dir.path().join("settings.yaml");
        fs::write(&settings, &self.settings).unwrap();
        let dir = self.dir.path();
        let log = fs::File::options().append(true).create(true).open(dir.join("log")).unwrap();
        let mut command = self.command();
        command
            .env_remove("ARTEL_REHEARSAL_DEATH")
            .env_remove("ARTEL_FAILPOINT")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs(self.failpoint.as_ref().map(|(variable, failpoint)| (*variable, failpoint)))
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
            .stderr(if self.has_unread_log { Stdio::piped() } else { Stdio::from(log) })
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }
}

/// A running daemon. Dropping it kills it.
pub struct Daemon {
    child: Child,
    dir: Arc<TempDir>,
    settings: String,
    program: fn() -> PathBuf,
    /// Where it listens, as `http://127.0.0.1:PORT`.
    pub address: String,
    channel: Channel,
    /// The owner's token.
    pub token: String,
}

impl Daemon {
    /// A client of `Tasks`.
    pub fn tasks(&self) -> TasksClient<CallerChannel> {
        TasksClient::new(self.owner())
    }

    /// A client of `Catalog`.
    pub fn catalog(&self) -> CatalogClient<CallerChannel> {
        CatalogClient::new(self.owner())
    }

    /// A client of `Router`.
    pub fn router(&self) -> RouterClient<CallerChannel> {
        RouterClient::new(self.owner())
    }

    /// A client of `Models`.
    pub fn models(&self) -> ModelsClient<CallerChannel> {
        ModelsClient::new(self.owner())
    }

    /// A client of `Engines`.
    pub fn engines(&self) -> EnginesClient<CallerChannel> {
        EnginesClient::new(self.owner())
    }

    /// A client of `Access`.
    pub fn access(&self) -> AccessClient<CallerChannel> {
        AccessClient::new(self.owner())
    }

    /// The connection of the owner, whose calls have its token.
    pub fn owner(&self) -> CallerChannel {
        self.caller(&self.token)
    }

    /// A connection whose calls have this token.
    pub fn caller(&self, token: &str) -> CallerChannel {
        CallerChannel::new(self.channel.clone(), TokenHeader::new(token))
    }

    /// The connection of a stranger, whose calls have no token.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Its directory: `catalog`, `data`, `log`, `settings.yaml`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The command line with the address and the data directory of this daemon, as its owner uses it.
    pub fn cli<const N: usize>(&self, args: [&str; N]) -> Cli {
        Cli::new(args).env("ARTEL_ADDRESS", &self.address).env("ARTEL_DATA", self.dir.path().join("data"))
    }

    /// What is written of its log so far: all of it once the daemon has ended, see [`Daemon::whole_log`] of one that runs.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Its log with everything it has logged so far. A thread of its own writes the lines in their order, so that of a call
    /// made now, which is refused and audited, comes behind them.
    pub async fn whole_log(&self) -> String {
        static MARKS: AtomicU64 = AtomicU64::new(0);
        let name = format!("no-token-{}", MARKS.fetch_add(1, Ordering::Relaxed));
        self.access().revoke_token(v1::RevokeTokenRequest { name: name.clone() }).await.expect_err("no such token");
        self.until_logged(&name).await;
        self.log()
    }

    /// Waits until its log has this text: a thread of its own writes it.
    pub async fn until_logged(&self, text: &str) {
        let logged = async {
            while !self.log().contains(text) {
                tokio::task::yield_now().await;
            }
        };
        let logged = tokio::time::timeout(LOG_TIMEOUT, logged).await;
        logged.unwrap_or_else(|_| panic!("`{text}` is not in the log: {}", self.log()));
    }

    /// The other end of the pipe of [`DaemonBuilder::with_unread_log`].
    pub fn unread_log(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("it was asked for, and is taken once")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process_id().cast_signed()), signal).unwrap();
    }

    /// How many files and sockets it has open.
    pub fn open_descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process_id())).unwrap().count()
    }

    /// Lifts the limit of its file sizes.
    pub async fn lift_file_size_limit(&self) {
        let pid = self.process_id().to_string();
        let status = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status().await.unwrap();
        assert!(status.success(), "{status}");
    }

    /// Waits until its process has exited.
    pub async fn wait(&mut self) -> ExitStatus {
        self.child.wait().await.unwrap()
    }

    /// Starts it again on the same directory, after it has exited.
    pub async fn restart(self) -> Self {
        self.after_exit().await.start().await
    }

    /// A builder with the same directory, once it has exited.
    pub async fn after_exit(mut self) -> DaemonBuilder {
        self.wait().await;
        let (dir, settings, program) = (self.dir.clone(), self.settings.clone(), self.program);
        DaemonBuilder {
            dir,
            settings,
            program,
            failpoint: None,
            models: models(),
            env: Vec::new(),
            file_size_limit_bytes: None,
            descriptor_limit: None,
            has_unread_log: false,
        }
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.child.id().expect("it runs")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(LOG_TAIL_LINES).collect();
            eprintln!("--- the last lines of the daemon's log ---");
            tail.into_iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

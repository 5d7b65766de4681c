//! The configuration of the daemon: flags and environment, then the settings file, then defaults.

use std::collections::BTreeMap;
use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use artel_actors::knowledge::ExtractorProgram;
use artel_actors::{KnowledgeOptions, Options};
use artel_args::{DEFAULT_LISTEN, DaemonArgs, DataArgs, default_data_dir};
use artel_engine::disk_prefix_cache;
use artel_http::ConnectionTimeouts;
use artel_journal::Retention;
use artel_roles::{EngineIsolation, NetworkRules, Problems, Settings, TraceSettings};
use artel_trainer::{Environment, EnvironmentOptions};

use crate::log_config::LogSettings;

use super::port::{PortConfig, PortSettings};

/// How long running tasks may continue after a request to stop: systemd kills a service after 90 s.
const DRAIN_GRACE: Duration = Duration::from_secs(30);
/// A client connects to make a call. One that says nothing holds a place that another one needs.
const CONNECTION_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that comes back after this connects again, which takes a millisecond.
const CONNECTION_IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// How long open calls may go on when the server closes: after everything else has ended.
const CONNECTION_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the prefix cache on disk: a few hundred prefixes of a small model.
const PREFIX_DISK_BYTES: u64 = 4 << 30;

/// The configuration of the daemon.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where it listens, and to which requests it answers.
    pub(crate) port: PortConfig,
    pub(crate) data: PathBuf,
    pub(crate) catalog: Option<PathBuf>,
    pub(super) grace: Duration,
    pub(super) target_itl: Duration,
    /// Bytes of host memory for the prefix cache of each engine.
    pub(super) prefix_cache_bytes: usize,
    /// The prefix cache on disk, shared by all engines.
    pub(super) disk_prefix_cache: Option<disk_prefix_cache::Options>,
    /// CPU threads that engines may use.
    pub(crate) threads: u32,
    /// RPC servers whose devices may be used.
    pub(crate) rpc: Vec<String>,
    /// The most bytes that engines may use of a device.
    pub(crate) budgets: BTreeMap<String, u64>,
    /// What documents from clients may name.
    pub(super) network: NetworkRules,
    /// Whether downloads are disabled.
    pub(crate) offline: bool,
    /// Whether the catalog is reloaded when its directory changes.
    pub(super) watch: bool,
    /// Whether engines run in processes of their own.
    pub(super) engines: EngineIsolation,
    /// How long an engine may show no sign of life.
    pub(super) hang_timeout: Duration,
    /// What the settings file says of the log.
    pub(crate) log: LogSettings,
    /// What the settings file says of traces.
    pub(crate) traces: TraceSettings,
    /// A Python interpreter that has the packages of the trainer.
    pub(super) trainer_python: Option<PathBuf>,
    /// The file with the token of the hub.
    pub(crate) hf_token_file: Option<PathBuf>,
    /// Whether the daemon and its engines may be debugged and leave core dumps.
    pub(crate) core_dumps: bool,
    /// What to look at in the settings file.
    pub(crate) warnings: Problems,
    pub(crate) runtime: Options,
    pub(crate) journal: artel_journal::Options,
}

/// This program, which reads documents for itself. It inherits nothing, since a variable may be secret.
fn extractor() -> Result<ExtractorProgram> {
    let path = crate::host::own_program().context("failed to find this program")?;
    Ok(ExtractorProgram { path, args: vec!["extract".into()], env: Vec::new() })
}

impl Config {
    /// The configuration of a daemon started with these flags alone.
    pub(crate) fn at(args: &DataArgs) -> Result<Self> {
        let DataArgs { config, data } = args.clone();
        Self::of(&DaemonArgs { config, data, ..DaemonArgs::default() }, None)
    }

    /// The configuration of a daemon started with these flags.
    pub(crate) fn of(args: &DaemonArgs, listen: Option<SocketAddr>) -> Result<Self> {
        let settings = match &args.config {
            Some(path) => Settings::load(path).map_err(|problems| anyhow!("the settings are invalid:\n{problems}"))?,
            None => Settings::default(),
        };
        let listen = listen.or(settings.listen);
        let listen = listen.map_or_else(|| DEFAULT_LISTEN.parse().map_err(anyhow::Error::from), Ok)?;
        let data = args.data.clone().or(settings.data).map_or_else(default_data, Ok)?;
        // A trainer works in another directory.
        let data = std::path::absolute(&data).with_context(|| format!("failed to find {}", data.display()))?;
        let models = args.models.clone().or(settings.models).unwrap_or_else(|| data.join("models"));
        let catalog = args.catalog.clone().or(settings.catalog).or_else(default_catalog);
        let defaults = Options::default();
        let tasks = settings.tasks.map_or(defaults.max_tasks, |tasks| tasks as usize);
        let mib = |mib: u32| u64::from(mib) << 20;
        let retention = Retention::default();
        let retention = Retention {
            tasks: settings.retention_tasks.map_or(retention.tasks, u64::from),
            age: settings.retention_age.unwrap_or(retention.age),
            bytes: settings.retention_mib.map_or(retention.bytes, mib),
        };
        let disk_bytes = settings.prefix_cache_disk_mib.map_or(PREFIX_DISK_BYTES, mib);
        let disk_prefix_cache =
            (disk_bytes > 0).then(|| disk_prefix_cache::Options { dir: data.join("prefixes"), max_bytes: disk_bytes });
        let count = |count: Option<u32>| count.and_then(|count| usize::try_from(count).ok());
        let network = NetworkRules::new(models.clone(), catalog.clone(), settings.network_files, settings.network_hubs);
        let port = PortSettings {
            listen,
            socket: settings.socket,
            tls: settings.tls,
            http: settings.http,
            max_connections: (count(settings.max_connections), count(settings.max_connections_per_peer)),
            timeouts: ConnectionTimeouts {
                handshake: settings.connection_handshake.unwrap_or(CONNECTION_HANDSHAKE_TIMEOUT),
                idle: settings.connection_idle.unwrap_or(CONNECTION_IDLE_TIMEOUT),
                close: CONNECTION_CLOSE_TIMEOUT,
            },
        };
        let memory = settings.prefix_cache_memory_mib.map(mib).and_then(|bytes| usize::try_from(bytes).ok());
        Ok(Self {
            network: network.clone(),
            port: PortConfig::new(port, &data)?,
            disk_prefix_cache,
            prefix_cache_bytes: memory.unwrap_or(artel_engine::Options::default().prefix_cache_bytes),
            catalog,
            grace: settings.grace.unwrap_or(DRAIN_GRACE),
            target_itl: settings.target_itl.unwrap_or(artel_engine::Options::default().target_itl),
            threads: settings.threads.unwrap_or_else(artel_llama::usable_cores),
            rpc: settings.rpc,
            budgets: settings.memory_mib.into_iter().map(|(device, limit)| (device, mib(limit))).collect(),
            offline: args.offline || settings.offline,
            watch: settings.watch.unwrap_or(true),
            engines: settings.engines.unwrap_or_default(),
            hang_timeout: settings.hang_timeout.unwrap_or(artel_process::DEFAULT_HANG_TIMEOUT),
            log: LogSettings { format: settings.log_format, level: settings.log_level },
            traces: settings.traces,
            trainer_python: settings.trainer_python,
            hf_token_file: settings.hf_token_file,
            core_dumps: settings.core_dumps,
            warnings: settings.warnings,
            runtime: Options {
                max_tasks: tasks,
                models_dir: models,
                default_graph: settings.graph,
                embedding_cache_dir: Some(data.join("vectors")),
                knowledge: Some(KnowledgeOptions { index: data.join("knowledge.db"), extractor: extractor()? }),
                network: Some(network),
                // Files may be there from before it was disabled.
                prefix_cache_dir: Some(data.join("prefixes")),
                ..defaults
            },
            journal: artel_journal::Options { retention, ..artel_journal::Options::default() },
            data,
        })
    }
}

impl Config {
    /// Where the trainer is, where its runs are, and what they may take.
    pub(super) fn training(&self) -> artel_training_runs::Options {
        let dir = self.data.join("training");
        let environment = EnvironmentOptions {
            existing: self.trainer_python.clone(),
            ..EnvironmentOptions::below(dir.join("trainer"))
        };
        artel_training_runs::Options {
            dir: dir.join("runs"),
            environment: Environment::new(environment),
            threads: self.threads,
        }
    }

    /// The directory of dequantized model files.
    pub(super) fn dequantized_dir(&self) -> PathBuf {
        self.data.join("weights")
    }
}

fn default_data() -> Result<PathBuf> {
    default_data_dir().ok_or_else(|| anyhow!("no data directory: set --data, ARTEL_DATA, XDG_DATA_HOME or HOME"))
}

/// The user's catalog at the default path, if it exists.
fn default_catalog() -> Option<PathBuf> {
    config_dir().map(|dir| dir.join("catalog")).filter(|dir| dir.is_dir())
}

/// The directory of the user's configuration, which need not exist.
pub(crate) fn config_dir() -> Option<PathBuf> {
    xdg("XDG_CONFIG_HOME", ".config")
}

fn xdg(variable: &str, below_home: &str) -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set(variable).or_else(|| Some(set("HOME")?.join(below_home)))?;
    Some(base.join(Path::new("artel")))
}

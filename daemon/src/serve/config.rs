//! What the daemon runs with: flags and environment, then the settings file, then defaults.

use std::collections::BTreeMap;
use std::env;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow};
use artel_actors::Options;
use artel_engine::disk_prefix_cache;
use artel_journal::Retention;
use artel_roles::Settings;

use crate::args;

/// Running tasks get so long to end when the daemon is asked to stop: a service manager waits 90 s before it kills.
const GRACE: Duration = Duration::from_secs(30);
/// Beginnings of prompts on disk: some three hundred of a small model.
const PREFIX_DISK: u64 = 4 << 30;

pub(super) use artel_roles::EngineIsolation;

/// What the daemon runs with.
#[derive(Debug)]
pub(crate) struct Config {
    pub(super) listen: SocketAddr,
    pub(crate) data: PathBuf,
    pub(crate) catalog: Option<PathBuf>,
    pub(super) grace: Duration,
    pub(super) gap: Duration,
    /// Bytes of host memory for beginnings of prompts, for each engine.
    pub(super) prefixes: usize,
    /// The same on disk, for all engines.
    pub(super) shelf: Option<disk_prefix_cache::Options>,
    /// Threads of the CPU that engines may use.
    pub(crate) threads: u32,
    /// RPC servers whose devices may be used.
    pub(crate) rpc: Vec<String>,
    /// Bytes that engines may take of a device at most.
    pub(crate) budgets: BTreeMap<String, u64>,
    /// Whether nothing is fetched.
    pub(crate) offline: bool,
    /// Whether the catalog is read again when its directory changes.
    pub(super) watch: bool,
    /// Where engines run.
    pub(super) engines: EngineIsolation,
    pub(crate) crew: Options,
    pub(crate) journal: artel_journal::Options,
}

impl Config {
    /// What a daemon would run with that is started with these flags alone.
    pub(crate) fn at(place: &args::Place) -> Result<Self> {
        let args::Place { config, data } = place.clone();
        Self::of(&args::Setup { config, data, ..args::Setup::default() }, None)
    }

    /// What a daemon would run with that is started with these flags.
    pub(crate) fn of(args: &args::Setup, listen: Option<SocketAddr>) -> Result<Self> {
        let settings = match &args.config {
            Some(path) => {
                Settings::load(path).map_err(|problems| anyhow!("the settings are not valid:\n{problems}"))?
            }
            None => Settings::default(),
        };
        for warning in settings.warnings.iter() {
            tracing::warn!(%warning, "the settings have a warning");
        }
        let listen = listen.or(settings.listen);
        let listen = listen.map_or_else(|| args::DEFAULT_LISTEN.parse().map_err(anyhow::Error::from), Ok)?;
        let data = args.data.clone().or(settings.data).map_or_else(default_data, Ok)?;
        let models = args.models.clone().or(settings.models).unwrap_or_else(|| data.join("models"));
        let catalog = args.catalog.clone().or(settings.catalog).or_else(default_catalog);
        let base = Options::default();
        let tasks = settings.tasks.map_or(base.max_tasks, |tasks| tasks as usize);
        let mib = |mib: u32| u64::from(mib) << 20;
        let retention = Retention::default();
        let retention = Retention {
            tasks: settings.retention_tasks.map_or(retention.tasks, u64::from),
            age: settings.retention_age.unwrap_or(retention.age),
            bytes: settings.retention_mib.map_or(retention.bytes, mib),
        };
        let disk = settings.prefix_cache_disk_mib.map_or(PREFIX_DISK, mib);
        let shelf = (disk > 0).then(|| disk_prefix_cache::Options { dir: data.join("prefixes"), max_bytes: disk });
        let memory = settings.prefix_cache_memory_mib.map(mib).and_then(|bytes| usize::try_from(bytes).ok());
        Ok(Self {
            shelf,
            prefixes: memory.unwrap_or(artel_engine::Options::default().prefix_cache_bytes),
            listen,
            catalog,
            grace: settings.grace.unwrap_or(GRACE),
            gap: settings.target_itl.unwrap_or(artel_engine::Options::default().target_itl),
            threads: settings.threads.unwrap_or_else(cores),
            rpc: settings.rpc,
            budgets: settings.memory_mib.into_iter().map(|(device, most)| (device, mib(most))).collect(),
            offline: args.offline || settings.offline,
            watch: settings.watch.unwrap_or(true),
            engines: settings.engines.unwrap_or_default(),
            crew: Options { max_tasks: tasks, models_dir: models, default_graph: settings.graph, embedding_cache_dir: Some(data.join("vectors")), ..base },
            journal: artel_journal::Options {
                retention,
                #[cfg(feature = "rehearsal")]
                death: super::rehearsal::death()?,
                ..artel_journal::Options::default()
            },
            data,
        })
    }
}

impl Config {
    /// Where recast files of models lie.
    pub(super) fn recast(&self) -> PathBuf {
        self.data.join("weights")
    }
}

/// Every core of the machine that is ours to use, and one at least.
pub(crate) fn cores() -> u32 {
    // A container may be given less time than its cores have.
    let given = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let cores = artel_llama::physical_cores().map_or(given, |cores| cores.len().clamp(1, given));
    u32::try_from(cores).unwrap_or(u32::MAX)
}

fn default_data() -> Result<PathBuf> {
    let dir = xdg("XDG_DATA_HOME", ".local/share");
    dir.ok_or_else(|| anyhow!("neither --data, ARTEL_DATA, XDG_DATA_HOME nor HOME say where to keep the journal"))
}

/// The user's own catalog, if there is one at the usual place.
fn default_catalog() -> Option<PathBuf> {
    xdg("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("catalog")).filter(|dir| dir.is_dir())
}

fn xdg(variable: &str, below_home: &str) -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set(variable).or_else(|| Some(set("HOME")?.join(below_home)))?;
    Some(base.join(Path::new("artel")))
}

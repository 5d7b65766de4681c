//! The facts that a diagnosis is based on.

use std::path::{Path, PathBuf};

use artel_actors::MemoryDemand;
use artel_check::files::{self, FileProblem};
use artel_http::{CertificateValidity, TlsError};
use artel_hub::disk;
use artel_journal::{DirExposure, JournalStats, Retention, SetAsideTask};
use artel_placement::{DeviceBytes, ModelFootprint, PlacementPlan, plan};
use artel_roles::{Catalog, DefinitionKind};
use artel_task::Clock;
use artel_task::event::Timestamp;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::gpu::{self, SystemGpu};
use crate::engine::probe::{self, ProbedDevice};
use crate::host;
use crate::log_config::LogConfig;
use crate::serve::config::Config;
use crate::serve::loader::LlamaLoader;
use crate::serve::port::ExposedPort;
use crate::settings_advice;
use crate::trace_config::TraceConfig;

/// Why the directory of the journal cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DataDirError {
    #[error("no parent directory of {0} exists")]
    NoParent(PathBuf),
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    #[error("{dir} is not writable: {}", .cause.desc())]
    NotWritable { dir: PathBuf, cause: Errno },
}

/// The state of the machine, the data directory and the catalog.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) now: Timestamp,
    /// The directory of the journal, and why it is not writable.
    pub(super) data: (PathBuf, Result<(), DataDirError>),
    /// Why that directory is not private, if it is not.
    pub(super) exposure: Option<DirExposure>,
    /// Statistics of the journal, if there is one; or why it cannot be read.
    pub(super) journal: Result<Option<JournalStats>, artel_journal::Error>,
    /// The tasks that no daemon runs although they have not ended.
    pub(super) set_aside: Vec<SetAsideTask>,
    pub(super) retention: Retention,
    /// What is logged, and how.
    pub(super) log: LogConfig,
    /// Where spans are sent, if there are traces; or why they cannot be.
    pub(super) traces: Option<Result<String, artel_otlp::Error>>,
    /// What the settings say that may be a mistake.
    pub(super) settings: Vec<String>,
    /// Free bytes on the disk of the journal, if known.
    pub(super) disk: Option<u64>,
    pub(super) threads: u32,
    pub(super) cores: u32,
    /// Total and free bytes of memory, if known.
    pub(super) memory: Option<(u64, u64)>,
    /// The cargo features for GPUs that this program was built with.
    pub(super) features: Vec<&'static str>,
    /// The GPUs that the kernel lists, with or without support in this program.
    pub(super) gpus: Vec<SystemGpu>,
    /// The devices of this machine, or why they cannot be listed.
    pub(super) local: Result<Vec<ProbedDevice>, probe::Error>,
    /// Why GPUs are not monitored.
    pub(super) monitor_error: Option<String>,
    /// The RPC servers of the settings, and their devices or why they cannot be listed.
    pub(super) servers: Vec<(String, Result<Vec<ProbedDevice>, probe::Error>)>,
    /// Whether other machines can read what is sent to the port.
    pub(super) exposed_port: Option<ExposedPort>,
    /// For how long the certificate of the port is valid, if there is one; or why it cannot be used.
    pub(super) certificate: Option<Result<CertificateValidity, TlsError>>,
    pub(super) offline: bool,
    /// The problems of the catalog.
    pub(super) catalog: Option<String>,
    /// The models, and the problems of their files.
    pub(super) models: Vec<(String, Result<(), FileProblem>)>,
    /// The adapters, each by its name or its role, and the problems of their files.
    pub(super) adapters: Vec<(String, Result<(), FileProblem>)>,
    /// Where a daemon would place the models whose footprint is known.
    pub(super) plan: PlacementPlan,
}

impl Findings {
    pub(super) async fn collect(config: &Config, log: &LogConfig, traces: &TraceConfig) -> Self {
        let catalog = Catalog::load(config.catalog.as_deref());
        let (models, adapters, plan) = match &catalog {
            Ok(catalog) => (models(catalog, config), adapters(catalog, config), planned(catalog, config).await),
            Err(_) => Default::default(),
        };
        let mut servers = Vec::new();
        for server in &config.rpc {
            servers.push((server.clone(), probe::devices(Some(server)).await));
        }
        let (local, monitor_error) = match probe::probe_devices(None).await {
            Ok(probe) => (Ok(probe.devices), probe.monitor_error),
            Err(reason) => (Err(reason), None),
        };
        Self {
            now: Clock::default().now(),
            data: (config.data.clone(), check_writable(&config.data)),
            // What cannot be looked at cannot be written either, which is reported above.
            exposure: artel_journal::exposure(&config.data).unwrap_or_default(),
            journal: artel_journal::stats(&config.data).await,
            // A journal that cannot be read is reported above.
            set_aside: artel_journal::set_aside(&config.data).await.unwrap_or_default(),
            retention: config.journal.retention,
            log: log.clone(),
            traces: traces.open().map(|opened| opened.map(|_| traces.to_string())),
            settings: settings_advice::warnings(config),
            disk: disk::free_bytes(&config.data),
            threads: config.threads,
            cores: artel_llama::usable_cores(),
            memory: host::memory(),
            features: gpu::features(),
            gpus: gpu::list(Path::new("/")),
            local,
            monitor_error,
            servers,
            exposed_port: config.port.check_exposure().err(),
            certificate: config.port.tls_files().map(|files| files.check()),
            offline: config.offline,
            catalog: catalog.err().map(|problems| problems.to_string()),
            models,
            adapters,
            plan,
        }
    }
}

fn models(catalog: &Catalog, config: &Config) -> Vec<(String, Result<(), FileProblem>)> {
    let check = |model: &_| files::model(model, &config.runtime.models_dir);
    catalog.models().iter().map(|(name, model)| (name.to_string(), check(model))).collect()
}

fn adapters(catalog: &Catalog, config: &Config) -> Vec<(String, Result<(), FileProblem>)> {
    let label = |kind: DefinitionKind, name: String| {
        if kind == DefinitionKind::Role { format!("of role {name}") } else { name }
    };
    let checked = files::adapters(catalog, &config.runtime.models_dir).into_iter();
    checked.map(|(kind, name, result)| (label(kind, name), result)).collect()
}

/// Where a daemon would place the models. Models without a file are reported elsewhere.
async fn planned(catalog: &Catalog, config: &Config) -> PlacementPlan {
    let loader = LlamaLoader::new(config);
    let mut needs = Vec::new();
    for (name, model) in catalog.engines() {
        let need = loader.estimate(&model, MemoryDemand::of(catalog, &model, &config.runtime.models_dir)).await;
        needs.extend(need.ok().map(|need| ModelFootprint { model: name, ..need }));
    }
    plan(&needs, &loader.inventory().devices(&DeviceBytes::new()).await, &[])
}

/// Checks that files can be created in a directory, or the directory itself if it does not exist.
fn check_writable(dir: &Path) -> Result<(), DataDirError> {
    let existing = dir.ancestors().find(|dir| dir.exists());
    let existing = existing.ok_or_else(|| DataDirError::NoParent(dir.to_owned()))?;
    if !existing.is_dir() {
        return Err(DataDirError::NotADirectory(existing.to_owned()));
    }
    let not_writable = |cause| DataDirError::NotWritable { dir: existing.to_owned(), cause };
    access(existing, AccessFlags::W_OK | AccessFlags::X_OK).map_err(not_writable)
}

//! What is found: facts, as they are.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use artel_actors::MemoryDemand;
use artel_journal::{Figures, Retention};
use artel_placement::{DeviceBytes, ModelFootprint, PlacementPlan, plan};
use artel_roles::Catalog;
use artel_task::event::Timestamp;
use nix::unistd::{AccessFlags, access};

use super::gpu::{self, Gpu};
use crate::disk;
use crate::engine::probe::{self, Found};
use crate::serve::config::{Config, cores};
use crate::serve::files::{self, Fault};
use crate::serve::hardware;
use crate::serve::loader::LlamaLoader;

/// What was found.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) now: Timestamp,
    /// Where the journal lies, and why nothing can be written there.
    pub(super) data: (PathBuf, Result<(), String>),
    /// What the journal holds, if there is one; or why it cannot be read.
    pub(super) journal: Result<Option<Figures>, String>,
    pub(super) retention: Retention,
    /// Bytes that the disk of the journal has left, where that can be told.
    pub(super) disk: Option<u64>,
    pub(super) threads: u32,
    pub(super) cores: u32,
    /// Bytes of memory that there are and that are free, where that can be told.
    pub(super) memory: Option<(u64, u64)>,
    /// The cargo features for GPUs that this program was built with.
    pub(super) features: Vec<&'static str>,
    /// The GPUs that the kernel shows, whatever this program was built with.
    pub(super) gpus: Vec<Gpu>,
    /// The devices of this machine, or why they cannot be listed.
    pub(super) local: Result<Vec<Found>, String>,
    /// Why nothing monitors GPUs.
    pub(super) unmonitored: Option<String>,
    /// The RPC servers of the settings, and their devices.
    pub(super) servers: Vec<(String, Result<Vec<Found>, String>)>,
    pub(super) offline: bool,
    /// What is wrong with the catalog.
    pub(super) catalog: Option<String>,
    /// The models, and what is wrong with their files.
    pub(super) models: Vec<(String, Result<(), Fault>)>,
    /// The roles with adapters, and what is wrong with these.
    pub(super) adapters: Vec<(String, Result<(), Fault>)>,
    /// Where the models would go that can be reckoned.
    pub(super) plan: PlacementPlan,
}

impl Findings {
    pub(super) async fn of(config: &Config) -> Self {
        let catalog = Catalog::load(config.catalog.as_deref());
        let (models, adapters, plan) = match &catalog {
            Ok(catalog) => (models(catalog, config), adapters(catalog, config), placed(catalog, config).await),
            Err(_) => Default::default(),
        };
        let mut servers = Vec::new();
        for server in &config.rpc {
            servers.push((server.clone(), probe::devices(Some(server)).await));
        }
        let (local, unmonitored) = match probe::look(None).await {
            Ok(probed) => (Ok(probed.devices), probed.unmonitored),
            Err(reason) => (Err(reason), None),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            now: Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)),
            data: (config.data.clone(), writable(&config.data)),
            journal: artel_journal::survey(&config.data).await.map_err(|error| error.to_string()),
            retention: config.journal.retention,
            disk: disk::free(&config.data),
            threads: config.threads,
            cores: cores(),
            memory: hardware::memory(),
            features: gpu::features(),
            gpus: gpu::look(Path::new("/")),
            local,
            unmonitored,
            servers,
            offline: config.offline,
            catalog: catalog.err().map(|problems| problems.to_string()),
            models,
            adapters,
            plan,
        }
    }
}

fn models(catalog: &Catalog, config: &Config) -> Vec<(String, Result<(), Fault>)> {
    let look = |model: &_| files::model(model, &config.crew.models_dir);
    catalog.models().iter().map(|(name, model)| (name.to_string(), look(model))).collect()
}

fn adapters(catalog: &Catalog, config: &Config) -> Vec<(String, Result<(), Fault>)> {
    let look = |role: &artel_roles::Role| {
        let adapter = role.adapter.as_ref()?;
        Some((role.name.to_string(), files::adapter(role, adapter, catalog, &config.crew.models_dir)))
    };
    catalog.roles().values().filter_map(|role| look(role)).collect()
}

/// Where a daemon would put the models. Those without a file are told of elsewhere.
async fn placed(catalog: &Catalog, config: &Config) -> PlacementPlan {
    let loader = LlamaLoader::new(config);
    let mut needs = Vec::new();
    for (name, model) in catalog.engines() {
        let need = loader.reckon(&model, MemoryDemand::of(catalog, &model, &config.crew.models_dir)).await;
        needs.extend(need.ok().map(|need| ModelFootprint { model: name, ..need }));
    }
    plan(&needs, &loader.hardware().devices(&DeviceBytes::new()).await)
}

/// Whether files can be made in a directory, or the directory itself where it is not there yet.
fn writable(dir: &Path) -> Result<(), String> {
    let Some(there) = dir.ancestors().find(|dir| dir.exists()) else { return Err("there is no such disk".to_owned()) };
    if !there.is_dir() {
        return Err(format!("{} is no directory", there.display()));
    }
    let flags = AccessFlags::W_OK | AccessFlags::X_OK;
    access(there, flags).map_err(|error| format!("{} cannot be written: {}", there.display(), error.desc()))
}

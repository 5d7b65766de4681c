//! The prefixes and adapters that the roles of a catalog need from an engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_engine::Request;
use artel_roles::{Adapter, Catalog, Model, Role};

use crate::prompt::{expected_adapters, prefix_request};

/// The memory that the roles of a model need from its engine, beside the model's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryDemand {
    /// The base model's context and one more for each adapter: each has a KV cache of its own.
    pub contexts: u32,
    /// Bytes of the adapters' files that exist locally.
    pub adapter_bytes: u64,
    /// Bytes of the text of all roles' prompt prefixes: the KV cache computed for them is kept.
    pub prefix_bytes: u64,
}

impl MemoryDemand {
    /// The demand of the model's roles; relative paths of adapters are resolved in `models_dir`.
    pub fn of(catalog: &Catalog, model: &Arc<Model>, models_dir: &Path) -> Self {
        ModelWorkload::of(catalog, model, models_dir).memory_demand()
    }
}

/// What an engine prefills ahead of time and keeps for a model's roles.
#[derive(Debug, Clone, Default)]
pub struct ModelWorkload {
    /// Requests of the prefixes alone.
    pub prefixes: Vec<Request>,
    /// Their paths, which need not exist yet, and scales.
    pub adapters: Vec<(PathBuf, f32)>,
    /// Those whose documents state a hash: an engine must not read another file.
    pub hashed: Vec<(PathBuf, Adapter)>,
}

impl ModelWorkload {
    /// What the roles of the model need; relative paths of adapters are resolved in `models_dir`.
    pub fn of(catalog: &Catalog, model: &Arc<Model>, models_dir: &Path) -> Self {
        let on_model = |role: &&Arc<Role>| role.model == model.name && catalog.model_of(role).as_ref() == Some(model);
        let mut workload = Self::default();
        for role in catalog.roles().values().filter(on_model) {
            workload.prefixes.extend(prefix_request(role, models_dir));
            // Several roles may share one adapter.
            for (adapter, expected) in expected_adapters(role, models_dir) {
                if adapter.sha256.is_some() && !workload.hashed.iter().any(|(_, known)| known == adapter) {
                    workload.hashed.push((expected.0.clone(), adapter.clone()));
                }
                if !workload.adapters.contains(&expected) {
                    workload.adapters.push(expected);
                }
            }
        }
        workload
    }

    /// The memory that these prefixes and adapters take.
    pub fn memory_demand(&self) -> MemoryDemand {
        let messages = self.prefixes.iter().flat_map(|request| &request.messages);
        let files = self.adapters.iter().filter_map(|(path, _)| fs::metadata(path).ok());
        MemoryDemand {
            contexts: 1 + self.adapters.len() as u32,
            adapter_bytes: files.map(|file| file.len()).sum(),
            prefix_bytes: messages.map(|message| message.text.len() as u64).sum(),
        }
    }
}

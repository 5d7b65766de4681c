//! The prefixes and adapters that the roles of a catalog need from an engine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_engine::{Request, ScaledAdapters};
use artel_roles::{Adapter, Catalog, Model, Role};

use crate::prompt::{expected_adapters, prefix_request};

/// The memory that the roles of a model need from its engine, beside the model's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryDemand {
    /// Bytes of the adapters' files that exist locally.
    pub adapter_bytes: u64,
    /// Bytes of the text of all roles' prompt prefixes: the KV cache computed for them is kept.
    pub prefix_bytes: u64,
    /// Bytes of the text of the longest of them.
    pub longest_prefix_bytes: u64,
    /// The most tokens of an answer of a role.
    pub max_output_tokens: u32,
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
    /// Those that apply together, by their paths, which need not exist yet, and scales.
    pub adapters: Vec<ScaledAdapters>,
    /// The most tokens of an answer of a role.
    pub max_output_tokens: u32,
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
            workload.max_output_tokens = workload.max_output_tokens.max(role.sampling.max_tokens);
            let (adapters, set): (Vec<_>, ScaledAdapters) =
                expected_adapters(role, models_dir).unwrap_or_default().into_iter().unzip();
            for (adapter, (path, _)) in adapters.into_iter().zip(&set).filter(|(adapter, _)| adapter.sha256.is_some()) {
                if !workload.hashed.iter().any(|(_, known)| known == adapter) {
                    workload.hashed.push((path.clone(), adapter.clone()));
                }
            }
            // Several roles may share adapters.
            if !set.is_empty() && !workload.adapters.contains(&set) {
                workload.adapters.push(set);
            }
        }
        workload
    }

    /// The memory that these prefixes and adapters take.
    pub fn memory_demand(&self) -> MemoryDemand {
        let bytes = |request: &Request| request.messages.iter().map(|message| message.text.len() as u64).sum::<u64>();
        // An engine loads a file once, at whichever scales.
        let paths: BTreeSet<&PathBuf> = self.adapters.iter().flatten().map(|(path, _)| path).collect();
        let files = paths.into_iter().filter_map(|path| fs::metadata(path).ok());
        MemoryDemand {
            adapter_bytes: files.map(|file| file.len()).sum(),
            prefix_bytes: self.prefixes.iter().map(bytes).sum(),
            longest_prefix_bytes: self.prefixes.iter().map(bytes).max().unwrap_or(0),
            max_output_tokens: self.max_output_tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::MemoryDemand;
    use crate::tests::catalog;

    #[test]
    fn the_longest_prompt_and_the_longest_answer_need_not_be_of_one_role() {
        let catalog = catalog(
            "model: talk\nfile: talk.gguf\n---\n\
             role: short\ndescription: Writes much.\nmodel: talk\nprompt: P.\nsampling: {max_tokens: 900}\n---\n\
             role: long\ndescription: Writes little.\nmodel: talk\nprompt: A longer prompt.\nsampling: {max_tokens: 9}\n",
        );
        let demand = MemoryDemand::of(&catalog, catalog.model("talk").unwrap(), Path::new("/nowhere"));
        assert_eq!((demand.prefix_bytes, demand.longest_prefix_bytes), (2 + 16, 16));
        assert_eq!((demand.max_output_tokens, demand.adapter_bytes), (900, 0));
    }
}

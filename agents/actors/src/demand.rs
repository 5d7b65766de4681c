//! What the roles of a catalog ask of an engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_engine::Request;
use artel_roles::{Catalog, Model, Role};

use crate::expert;

/// What the roles of a model ask of its engine, as far as it takes memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// The base, and one more for each adapter: each has a cache of its own.
    pub lanes: u32,
    /// Bytes of the adapters' files that are here.
    pub adapters: u64,
    /// Bytes of the texts that prompts begin with, of all roles together: what is computed of them is kept.
    pub openings: u64,
}

impl Demand {
    /// Of these roles; adapters that are named by relative paths are looked for in `models`.
    pub fn of(catalog: &Catalog, model: &Arc<Model>, models: &Path) -> Self {
        Asked::of(catalog, model, models).demand()
    }
}

/// The same in full: what an engine computes ahead and keeps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) openings: Vec<Request>,
    /// Where they are or will be, and their scales.
    pub(crate) adapters: Vec<(PathBuf, f32)>,
}

impl Asked {
    pub(crate) fn of(catalog: &Catalog, model: &Arc<Model>, models: &Path) -> Self {
        let here = |role: &&Arc<Role>| role.model == model.name && catalog.model_of(role).as_ref() == Some(model);
        let mut asked = Self::default();
        for role in catalog.roles().values().filter(here) {
            asked.openings.extend(expert::opening(role, models));
            // Several roles may have the same one.
            asked.adapters.extend(expert::lane(role, models).filter(|adapter| !asked.adapters.contains(adapter)));
        }
        asked
    }

    pub(crate) fn demand(&self) -> Demand {
        let texts = self.openings.iter().flat_map(|request| &request.messages);
        let files = self.adapters.iter().filter_map(|(path, _)| fs::metadata(path).ok());
        Demand {
            lanes: 1 + self.adapters.len() as u32,
            adapters: files.map(|file| file.len()).sum(),
            openings: texts.map(|message| message.text.len() as u64).sum(),
        }
    }
}

//! Checks what was written: the catalog, the files of its models, their chat template, and where the planner places them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use artel_actors::MemoryDemand;
use artel_check::files;
use artel_init::StarterCatalog;
use artel_placement::{DeviceBytes, Placement, plan};
use artel_roles::{Catalog, Model};

use crate::serve::config::Config;
use crate::serve::loader::LlamaLoader;

/// What the checks found.
pub(super) struct CrewCheck {
    /// How many roles, graphs and models a daemon will have.
    pub(super) counts: [usize; 3],
    /// Where the models will be placed, in words.
    pub(super) placements: Vec<String>,
    /// Why a model cannot be used, in words.
    pub(super) problems: Vec<String>,
}

impl CrewCheck {
    pub(super) fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Checks the catalog of a directory, and the models of the starter catalog whose files are here.
pub(super) async fn check(dir: &Path, config: &Config, starter: &StarterCatalog) -> Result<CrewCheck> {
    let catalog = Catalog::load(Some(dir)).map_err(|problems| anyhow!("the catalog is invalid:\n{problems}"))?;
    let counts = [catalog.roles().len(), catalog.graphs().len(), catalog.models().len()];
    let mut check = CrewCheck { counts, placements: Vec::new(), problems: Vec::new() };
    let names = [Some(&starter.chat), starter.embedding.as_ref()];
    let models = names.into_iter().flatten().filter_map(|model| catalog.model(&model.name));
    let models_dir = &config.runtime.models_dir;
    let here: Vec<(&Arc<Model>, PathBuf)> =
        models.filter_map(|model| Some((model, files::model_path(model, models_dir).ok()?))).collect();
    for (model, path) in &here {
        check.problems.extend(file_problem(model, path, models_dir));
    }
    let loader = LlamaLoader::new(config);
    let mut footprints = Vec::new();
    for (model, _) in &here {
        // A file whose header cannot be read is reported above.
        footprints.extend(loader.estimate(model, MemoryDemand::of(&catalog, model, models_dir)).await.ok());
    }
    let plan = plan(&footprints, &loader.inventory().devices(&DeviceBytes::new()).await, &[]);
    let placed = |placement: &Placement| {
        format!("{} runs on {}: {}", placement.model, placement.devices().join(" and "), placement.reason)
    };
    check.placements.extend(plan.placed.iter().map(placed));
    check.problems.extend(plan.unplaced.iter().map(|unplaced| format!("{}: {}", unplaced.model, unplaced.reason)));
    Ok(check)
}

/// Why a file cannot be used as the model.
fn file_problem(model: &Model, path: &Path, models_dir: &Path) -> Option<String> {
    if let Err(problem) = files::model(model, models_dir) {
        return Some(format!("{}: {problem}", model.name));
    }
    if model.purpose.pools() {
        return None;
    }
    let header = artel_gguf::inspect(path).ok()?;
    let name = &model.name;
    let Some(template) = header.chat_template() else {
        return Some(format!("{name}: the file has no chat template: set `template` of the model"));
    };
    let error = artel_llama::check_chat_template(template, path).err()?;
    Some(format!("{name}: {error}: set `template` of the model, or take another one with --model"))
}

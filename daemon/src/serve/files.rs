//! The GGUF files that a catalog names: are they there, and are they what they should be?

use std::path::{Path, PathBuf};

use artel_llama::gguf;
use artel_roles::{Adapter, Catalog, Model, Role};

/// The first of these paths that exists; if none does, what to say.
pub(crate) fn find(candidates: &[PathBuf]) -> Result<PathBuf, String> {
    let found = candidates.iter().find(|path| path.exists());
    found.cloned().ok_or_else(|| {
        let tried: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        format!("no such file: {}", tried.join(", nor "))
    })
}

/// Why a model cannot be loaded, as far as its file's header tells.
pub(crate) fn model(model: &Model, models: &Path) -> Result<(), String> {
    let path = find(&model.candidates(models))?;
    gguf::inspect(&path).map(drop).map_err(|e| e.to_string())
}

/// Why a role's adapter cannot be loaded, as far as its file tells.
pub(crate) fn adapter(role: &Role, adapter: &Adapter, catalog: &Catalog, models: &Path) -> Result<(), String> {
    let path = find(&adapter.candidates(models))?;
    let base = catalog.model(role.model.as_str()).ok_or_else(|| format!("there is no model `{}`", role.model))?;
    let base = find(&base.candidates(models))?;
    let header = gguf::inspect(&base).map_err(|e| e.to_string())?;
    gguf::inspect_adapter(&path, &header.architecture).map(drop).map_err(|e| e.to_string())
}

/// Looks at every file that a catalog names, hashes included, which reads each file once. What is wrong, a line each.
pub(crate) fn check(catalog: &Catalog, models: &Path) -> Vec<String> {
    let of_model = catalog.models().values().filter_map(|m| {
        let error = model(m, models).err().or_else(|| hash(m, models).err())?;
        Some(format!("model `{}`: {error}", m.name))
    });
    let of_role = catalog.roles().values().filter_map(|role| {
        let error = adapter(role, role.adapter.as_ref()?, catalog, models).err()?;
        Some(format!("role `{}`: {error}", role.name))
    });
    of_model.chain(of_role).collect()
}

fn hash(model: &Model, models: &Path) -> Result<(), String> {
    let Some(sha256) = &model.sha256 else { return Ok(()) };
    gguf::verify_hash(&find(&model.candidates(models))?, sha256).map_err(|e| e.to_string())
}

//! The GGUF files that a catalog names: are they there, and are they what they should be?

use std::fmt;
use std::path::{Path, PathBuf};

use artel_llama::gguf;
use artel_roles::hf_uri::HfUri;
use artel_roles::{Adapter, Catalog, GgufFile, Model, Role};

/// Why a file is of no use now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It comes from a hub, and has not come yet.
    Awaited {
        /// Where it comes from.
        address: HfUri,
        /// Where it will be.
        place: PathBuf,
    },
    /// It is at none of these places.
    Missing(Vec<PathBuf>),
    /// It is not what it should be.
    Wrong(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Awaited { address, place } => {
                write!(f, "{address} is not fetched yet; it will be {}", place.display())
            }
            Self::Missing(tried) => {
                let tried: Vec<String> = tried.iter().map(|path| path.display().to_string()).collect();
                write!(f, "no such file: {}", tried.join(", nor "))
            }
            Self::Wrong(reason) => f.write_str(reason),
        }
    }
}

/// What a look at the files of a catalog finds, a sentence each.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What is wrong.
    pub(crate) problems: Vec<String>,
    /// What is still to be fetched.
    pub(crate) awaited: Vec<String>,
}

/// The first of these places of a file at which it is.
pub(crate) fn find(file: &GgufFile, candidates: &[PathBuf]) -> Result<PathBuf, Fault> {
    let found = candidates.iter().find(|path| path.exists());
    found.cloned().ok_or_else(|| match (file.uri(), candidates.first()) {
        (Some(address), Some(place)) => Fault::Awaited { address: address.clone(), place: place.clone() },
        _ => Fault::Missing(candidates.to_vec()),
    })
}

/// Where the file of a model is.
pub(crate) fn of_model(model: &Model, models: &Path) -> Result<PathBuf, Fault> {
    find(&model.file, &model.candidates(models))
}

/// Why a model cannot be loaded, as far as its file's header tells.
pub(crate) fn model(model: &Model, models: &Path) -> Result<(), Fault> {
    let path = of_model(model, models)?;
    gguf::inspect(&path).map(drop).map_err(|e| Fault::Wrong(e.to_string()))
}

/// Why a role's adapter cannot be loaded, as far as its file tells.
pub(crate) fn adapter(role: &Role, adapter: &Adapter, catalog: &Catalog, models: &Path) -> Result<(), Fault> {
    let wrong = |error: gguf::Error| Fault::Wrong(error.to_string());
    let path = find(&adapter.file, &adapter.candidates(models))?;
    let base = catalog.model(role.model.as_str());
    let base = base.ok_or_else(|| Fault::Wrong(format!("there is no model `{}`", role.model)))?;
    // A base that is not here yet is told where models are.
    let Ok(base) = of_model(base, models) else { return Ok(()) };
    let header = gguf::inspect(&base).map_err(wrong)?;
    gguf::inspect_adapter(&path, &header.architecture).map(drop).map_err(wrong)
}

/// Looks at every file that a catalog names, hashes included, which reads each file once. Nothing is fetched.
pub(crate) fn check(catalog: &Catalog, models: &Path) -> Found {
    let mut found = Found::default();
    for m in catalog.models().values() {
        let looked = model(m, models).and_then(|()| hash(m, models));
        found.note(looked, &format!("model `{}`", m.name));
    }
    for role in catalog.roles().values() {
        let Some(a) = &role.adapter else { continue };
        found.note(adapter(role, a, catalog, models), &format!("role `{}`", role.name));
    }
    found
}

fn hash(model: &Model, models: &Path) -> Result<(), Fault> {
    let Some(sha256) = &model.sha256 else { return Ok(()) };
    gguf::verify_sha256(&of_model(model, models)?, sha256).map_err(|e| Fault::Wrong(e.to_string()))
}

impl Found {
    fn note(&mut self, looked: Result<(), Fault>, whose: &str) {
        match looked {
            Ok(()) => {}
            Err(fault @ Fault::Awaited { .. }) => self.awaited.push(format!("{whose}: {fault}")),
            Err(fault) => self.problems.push(format!("{whose}: {fault}")),
        }
    }
}

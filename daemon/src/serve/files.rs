//! Checks the GGUF files that a catalog names: whether they exist, and whether they are valid.

use std::fmt;
use std::path::{Path, PathBuf};

use artel_llama::gguf;
use artel_roles::hf_uri::HfUri;
use artel_roles::{Adapter, Catalog, GgufFile, Model, Role};

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileProblem {
    /// It is downloaded from a hub, and has not been fetched yet.
    NotFetched {
        /// Its address on the hub.
        address: HfUri,
        /// The path that it will have.
        path: PathBuf,
    },
    /// It exists at none of these paths.
    Missing(Vec<PathBuf>),
    /// It is not the expected file; the reason.
    Invalid(String),
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFetched { address, path } => {
                write!(f, "{address} is not fetched yet; it will be {}", path.display())
            }
            Self::Missing(tried) => {
                let tried: Vec<String> = tried.iter().map(|path| path.display().to_string()).collect();
                write!(f, "no such file: {}", tried.join(", nor "))
            }
            Self::Invalid(reason) => f.write_str(reason),
        }
    }
}

/// The result of checking the files of a catalog, a message each.
#[derive(Debug, Default)]
pub(crate) struct FileReport {
    /// Invalid or missing files.
    pub(crate) problems: Vec<String>,
    /// Files that are still to be fetched.
    pub(crate) not_fetched: Vec<String>,
}

/// The first candidate path at which a file exists.
pub(crate) fn find(file: &GgufFile, candidates: &[PathBuf]) -> Result<PathBuf, FileProblem> {
    let found = candidates.iter().find(|path| path.exists());
    found.cloned().ok_or_else(|| match (file.uri(), candidates.first()) {
        (Some(address), Some(path)) => FileProblem::NotFetched { address: address.clone(), path: path.clone() },
        _ => FileProblem::Missing(candidates.to_vec()),
    })
}

/// The path of the file of a model.
pub(crate) fn model_path(model: &Model, models: &Path) -> Result<PathBuf, FileProblem> {
    find(&model.file, &model.candidates(models))
}

/// Checks that a model can be loaded, as far as the header of its file shows.
pub(crate) fn model(model: &Model, models: &Path) -> Result<(), FileProblem> {
    let path = model_path(model, models)?;
    gguf::inspect(&path).map(drop).map_err(|e| FileProblem::Invalid(e.to_string()))
}

/// Checks that a role's adapter can be loaded, as far as the header of its file shows.
pub(crate) fn adapter(role: &Role, adapter: &Adapter, catalog: &Catalog, models: &Path) -> Result<(), FileProblem> {
    let invalid = |error: gguf::Error| FileProblem::Invalid(error.to_string());
    let path = find(&adapter.file, &adapter.candidates(models))?;
    let base = catalog.model(role.model.as_str());
    let base = base.ok_or_else(|| FileProblem::Invalid(format!("there is no model `{}`", role.model)))?;
    // A missing base model is reported with the models.
    let Ok(base) = model_path(base, models) else { return Ok(()) };
    let header = gguf::inspect(&base).map_err(invalid)?;
    gguf::inspect_adapter(&path, &header.architecture).map(drop).map_err(invalid)
}

/// Checks every file that a catalog names, including hashes, for which each file is read once. Fetches nothing.
pub(crate) fn check(catalog: &Catalog, models: &Path) -> FileReport {
    let mut report = FileReport::default();
    for m in catalog.models().values() {
        let result = model(m, models).and_then(|()| hash(m, models));
        report.add(result, &format!("model `{}`", m.name));
    }
    for role in catalog.roles().values() {
        let Some(a) = &role.adapter else { continue };
        report.add(adapter(role, a, catalog, models), &format!("role `{}`", role.name));
    }
    report
}

fn hash(model: &Model, models: &Path) -> Result<(), FileProblem> {
    let Some(sha256) = &model.sha256 else { return Ok(()) };
    gguf::verify_sha256(&model_path(model, models)?, sha256).map_err(|e| FileProblem::Invalid(e.to_string()))
}

impl FileReport {
    fn add(&mut self, result: Result<(), FileProblem>, owner: &str) {
        match result {
            Ok(()) => {}
            Err(problem @ FileProblem::NotFetched { .. }) => self.not_fetched.push(format!("{owner}: {problem}")),
            Err(problem) => self.problems.push(format!("{owner}: {problem}")),
        }
    }
}

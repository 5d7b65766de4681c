//! Checks the GGUF files that a catalog names: whether they exist, and whether they are valid.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use artel_model::piece_paths;
use artel_roles::hf_uri::HfUri;
use artel_roles::{Adapter, Catalog, DefinitionKind, GgufFile, Model, Role, nearest};

use crate::{reasoning_marks, template_variables};

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    /// It is downloaded from a hub, and has not been fetched yet.
    #[error("{address} is not fetched yet; it will be {path}")]
    NotFetched {
        /// Its address on the hub.
        address: HfUri,
        /// The path that it will have.
        path: PathBuf,
    },
    /// It exists at none of these paths.
    #[error("no such file: {}", joined(.0))]
    Missing(Vec<PathBuf>),
    /// It exists at none of these paths, and its text may have been meant as the name of an adapter.
    #[error(
        "no such file: {}; and there is no adapter `{name}`{}{}",
        joined(.paths), instead(.others.as_deref()), meant(.near.as_deref())
    )]
    NoAdapter {
        /// The paths.
        paths: Vec<PathBuf>,
        /// The text.
        name: String,
        /// The definitions of other kinds that have this name, each with its place.
        others: Option<String>,
        /// The adapter whose name is nearest to it, if one is near.
        near: Option<String>,
    },
    /// It is not the expected file; the reason.
    #[error("{0}")]
    Invalid(String),
}

/// The result of checking the files of a catalog, a message each.
#[derive(Debug, Default)]
pub struct FileReport {
    /// Invalid or missing files.
    pub problems: Vec<String>,
    /// Files that are still to be fetched.
    pub not_fetched: Vec<String>,
    /// What is no fault, and likely a mistake.
    pub warnings: Vec<String>,
    /// What the files say that the YAML leaves to them.
    pub notes: Vec<String>,
}

/// The first candidate path at which a file exists. Of a model in pieces, that of the first piece: where any piece is, so that the
/// missing ones can be named; or, from a hub, where all are.
///
/// # Errors
/// It exists at none of them.
pub fn find(file: &GgufFile, candidates: &[PathBuf]) -> Result<PathBuf, FileProblem> {
    match (file.uri(), candidates.first()) {
        (Some(_), Some(path)) if piece_paths(path).iter().all(|piece| piece.exists()) => Ok(path.clone()),
        (Some(address), Some(path)) => Err(FileProblem::NotFetched { address: address.clone(), path: path.clone() }),
        _ => {
            let is_here = |path: &&PathBuf| piece_paths(path).iter().any(|piece| piece.exists());
            candidates.iter().find(is_here).cloned().ok_or_else(|| FileProblem::Missing(candidates.to_vec()))
        }
    }
}

/// The path of the file of a model, below a directory of models unless its YAML says another one.
///
/// # Errors
/// There is no such file.
pub fn model_path(model: &Model, models: &Path) -> Result<PathBuf, FileProblem> {
    find(&model.file, &model.candidates(models))
}

/// Checks that a model can be loaded, as far as the header of its file shows.
///
/// # Errors
/// The file is missing or invalid.
pub fn model(model: &Model, models: &Path) -> Result<(), FileProblem> {
    let path = model_path(model, models)?;
    let header = artel_gguf::inspect(&path);
    let checked = header.and_then(|header| artel_gguf::check_purpose(&path, &header, model.purpose));
    checked.map_err(|e| FileProblem::Invalid(e.to_string()))
}

/// Checks that the file of a document `adapter: NAME` is there, and is none of a model. Which models it fits is checked with the roles that
/// name it.
///
/// # Errors
/// The file is missing or invalid.
pub fn named_adapter(adapter: &Adapter, models: &Path) -> Result<(), FileProblem> {
    let path = find(&adapter.file, &adapter.candidates(models))?;
    artel_gguf::inspect_any_adapter(&path).map(drop).map_err(|e| FileProblem::Invalid(e.to_string()))
}

/// Checks that a role's adapter can be loaded, as far as the header of its file shows.
///
/// # Errors
/// The file is missing, invalid, or made for another architecture than that of the role's model; or it is not known whether a name or a
/// file is meant.
pub fn adapter(role: &Role, adapter: &Adapter, catalog: &Catalog, models: &Path) -> Result<(), FileProblem> {
    let invalid = |error: artel_gguf::Error| FileProblem::Invalid(error.to_string());
    if let (Some(name), Some(path)) = (&adapter.name, adapter.homonyms(models).into_iter().find(|path| path.is_file()))
    {
        let both = format!("`{name}` is the name of an adapter and of the file {}", path.display());
        return Err(FileProblem::Invalid(format!("{both}; write `{{adapter: {name}}}` or `{{file: {name}}}`")));
    }
    let path = find(&adapter.file, &adapter.candidates(models)).map_err(|problem| {
        match (problem, adapter.missing_name()) {
            (FileProblem::Missing(paths), Some(name)) => {
                let near = nearest(name, catalog.adapters().keys().map(|known| known.as_str()));
                let others = adapter.other_kinds().map(str::to_owned);
                FileProblem::NoAdapter { paths, name: name.to_owned(), others, near: near.map(str::to_owned) }
            }
            (problem, _) => problem,
        }
    })?;
    let base = catalog.model(role.model.as_str());
    let base = base.ok_or_else(|| FileProblem::Invalid(format!("there is no model `{}`", role.model)))?;
    // A missing base model is reported with the models.
    let Ok(base) = model_path(base, models) else { return Ok(()) };
    let header = artel_gguf::inspect(&base).map_err(invalid)?;
    artel_gguf::inspect_adapter(&path, &header.architecture).map(drop).map_err(invalid)
}

/// Checks every file that a catalog names, including hashes, for which each file is read once. Fetches nothing.
pub fn check(catalog: &Catalog, models: &Path) -> FileReport {
    let mut report = FileReport::default();
    for m in catalog.models().values() {
        let result = model(m, models).and_then(|()| hash(m, models));
        report.add(result, &format!("model `{}`", m.name));
    }
    for (kind, name, result) in adapters(catalog, models) {
        let result = match catalog.adapter(&name).filter(|_| kind == DefinitionKind::Adapter) {
            Some(adapter) => result.and_then(|()| adapter_hash(adapter, models)),
            None => result,
        };
        report.add(result, &format!("{kind} `{name}`"));
    }
    report.notes = catalog.models().values().filter_map(|model| stated_sampling(model, models)).collect();
    report.warnings = template_variables::unread(catalog, |model| model_path(model, models).ok());
    report.warnings.extend(reasoning_marks::without_effect(catalog, |model| model_path(model, models).ok()));
    report
}

/// The adapters of a catalog, and those of its roles, each with the kind and the name of the definition and the result of its check. A role
/// is not blamed for the missing file of an adapter with a document.
pub fn adapters(catalog: &Catalog, models: &Path) -> Vec<(DefinitionKind, String, Result<(), FileProblem>)> {
    let named = catalog.adapters().values().filter_map(|adapter| {
        let name = adapter.name.as_ref()?.to_string();
        Some((DefinitionKind::Adapter, name, named_adapter(adapter, models)))
    });
    let of_roles = catalog.roles().values().flat_map(|role| role.adapters.iter().map(move |adapter| (role, adapter)));
    let is_here = |adapter: &Adapter| adapter.candidates(models).iter().any(|path| path.exists());
    let of_roles = of_roles.filter(|(_, adapter)| adapter.name.is_none() || is_here(adapter));
    let of_roles = of_roles
        .map(|(role, of_role)| (DefinitionKind::Role, role.name.to_string(), adapter(role, of_role, catalog, models)));
    named.chain(of_roles).collect()
}

/// What a model's file states of its sampling, in a sentence.
fn stated_sampling(model: &Model, models: &Path) -> Option<String> {
    let path = model_path(model, models).ok()?;
    let stated = artel_gguf::stated_sampling(&path, &artel_gguf::inspect(&path).ok()?);
    let holds = "it holds where a role says nothing";
    (!stated.is_empty()).then(|| format!("model `{}`: its file states {}; {holds}", model.name, stated.summary()))
}

fn hash(model: &Model, models: &Path) -> Result<(), FileProblem> {
    let Some(sha256) = &model.sha256 else { return Ok(()) };
    artel_gguf::verify_sha256(&model_path(model, models)?, sha256).map_err(|e| FileProblem::Invalid(e.to_string()))
}

fn adapter_hash(adapter: &Adapter, models: &Path) -> Result<(), FileProblem> {
    let Some(sha256) = &adapter.sha256 else { return Ok(()) };
    let path = find(&adapter.file, &adapter.candidates(models))?;
    artel_gguf::verify_sha256(&path, sha256).map_err(|e| FileProblem::Invalid(e.to_string()))
}

/// What has a name that no adapter has, in words.
fn instead(others: Option<&str>) -> String {
    others.map(|others| format!(", but {others}")).unwrap_or_default()
}

/// What may have been meant, in words.
fn meant(near: Option<&str>) -> String {
    near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default()
}

fn joined(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(", nor ")
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

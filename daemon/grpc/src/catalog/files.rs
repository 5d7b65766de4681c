//! Catalog files sent by a client: checks their paths and builds the catalog.

use std::collections::BTreeSet;
use std::path::Path;

use artel_proto::v1;
use artel_roles::{Catalog, CheckDeadline, NetworkRules, Problems, YamlSource};

use crate::field_error::FieldError;
use crate::status::Violations;

/// The longest path.
const MAX_PATH_BYTES: usize = 1024;

pub(super) fn check(files: &[v1::SourceFile], violations: &mut Violations) {
    let limit = artel_roles::source::MAX_FILES;
    if files.len() > limit {
        return violations.add("files", FieldError::TooManyEntries { entries: files.len(), limit });
    }
    let mut seen = BTreeSet::new();
    for (at, file) in files.iter().enumerate() {
        let field = format!("files[{at}].path");
        if let Err(error) = path(&file.path) {
            violations.add(&field, error);
        } else if !seen.insert(&file.path) {
            violations.add(&field, FieldError::DuplicatePath(file.path.clone()));
        }
    }
}

fn path(path: &str) -> Result<(), FieldError> {
    if path.is_empty() || path.len() > MAX_PATH_BYTES {
        return Err(FieldError::PathLength { bytes: path.len(), limit: MAX_PATH_BYTES });
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains(['\\', '\0']) {
        return Err(FieldError::PathForm);
    }
    if !path.ends_with(".yaml") && !path.ends_with(".yml") {
        return Err(FieldError::PathEnding);
    }
    Ok(())
}

/// The catalog of these files over the shipped layer. Relative paths in them are resolved against `base_dir`; what they may name is
/// up to the rules.
pub(super) fn build(
    files: Vec<v1::SourceFile>,
    base_dir: &Path,
    rules: &NetworkRules,
    deadline: &CheckDeadline,
) -> Result<Catalog, Problems> {
    let mut sources = Vec::new();
    for v1::SourceFile { path, content } in files {
        let dir = base_dir.join(Path::new(&path).parent().unwrap_or(Path::new("")));
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        sources.push(YamlSource::of_bytes(path, Some(dir), content)?);
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Catalog::parse_from_client(sources, rules, deadline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relative_yaml_paths_are_valid() {
        for good in ["a.yaml", "roles/a.yml", "a/b/c.yaml"] {
            assert_eq!(path(good), Ok(()), "{good}");
        }
        for bad in ["", "/a.yaml", "../a.yaml", "a//b.yaml", "a/./b.yaml", "a.txt", "a\\b.yaml"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}

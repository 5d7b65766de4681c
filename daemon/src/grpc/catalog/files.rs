//! Catalog files sent by a client: checks their paths and builds the catalog.

use std::collections::BTreeSet;
use std::path::Path;

use artel_proto::v1;
use artel_roles::{Catalog, Problems, YamlSource, shipped};

use crate::grpc::status::Violations;

/// The longest path.
const MAX_PATH_BYTES: usize = 1024;

pub(super) fn check(files: &[v1::SourceFile], violations: &mut Violations) {
    if files.len() > artel_roles::source::MAX_FILES {
        let limit = artel_roles::source::MAX_FILES;
        return violations.add("files", format!("has {} entries, the limit is {limit}", files.len()));
    }
    let mut seen = BTreeSet::new();
    for (at, file) in files.iter().enumerate() {
        let field = format!("files[{at}].path");
        if let Err(description) = path(&file.path) {
            violations.add(&field, description);
        } else if !seen.insert(&file.path) {
            violations.add(&field, format!("duplicate path `{}`", file.path));
        }
    }
}

fn path(path: &str) -> Result<(), String> {
    if path.is_empty() || path.len() > MAX_PATH_BYTES {
        return Err(format!("a path has 1 to {MAX_PATH_BYTES} bytes, this one has {}", path.len()));
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains(['\\', '\0']) {
        return Err("a path must be relative and separated by `/`, without empty, `.` or `..` parts".to_owned());
    }
    if !path.ends_with(".yaml") && !path.ends_with(".yml") {
        return Err("a path must end in `.yaml` or `.yml`".to_owned());
    }
    Ok(())
}

/// The catalog of these files over the shipped layer. Relative paths in them are resolved against `base_dir`.
pub(super) fn build(files: Vec<v1::SourceFile>, base_dir: &Path) -> Result<Catalog, Problems> {
    let mut sources = Vec::new();
    for v1::SourceFile { path, content } in files {
        let dir = base_dir.join(Path::new(&path).parent().unwrap_or(Path::new("")));
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        sources.push(YamlSource::of_bytes(path, Some(dir), content)?);
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Catalog::parse(vec![shipped::sources(), sources])
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

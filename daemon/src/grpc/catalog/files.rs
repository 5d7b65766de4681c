//! Files that a client sends: their paths, and the catalog that they make.

use std::collections::BTreeSet;
use std::path::Path;

use artel_proto::v1;
use artel_roles::{Catalog, Problems, YamlSource, shipped};

use crate::grpc::status::Violations;

/// The longest path, in bytes.
const MAX_PATH: usize = 1024;

pub(super) fn check(files: &[v1::SourceFile], violations: &mut Violations) {
    if files.len() > artel_roles::source::MAX_FILES {
        let limit = artel_roles::source::MAX_FILES;
        return violations.add("files", format!("there are {}, the limit is {limit}", files.len()));
    }
    let mut seen = BTreeSet::new();
    for (at, file) in files.iter().enumerate() {
        let field = format!("files[{at}].path");
        if let Err(description) = path(&file.path) {
            violations.add(&field, description);
        } else if !seen.insert(&file.path) {
            violations.add(&field, format!("`{}` is there twice", file.path));
        }
    }
}

fn path(path: &str) -> Result<(), String> {
    if path.is_empty() || path.len() > MAX_PATH {
        return Err(format!("a path has 1 to {MAX_PATH} bytes, and this has {}", path.len()));
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains(['\\', '\0']) {
        return Err("a path is relative, with `/` between parts, none of which is empty, `.` or `..`".to_owned());
    }
    if !path.ends_with(".yaml") && !path.ends_with(".yml") {
        return Err("a path ends in `.yaml` or `.yml`".to_owned());
    }
    Ok(())
}

/// The catalog of these files over the shipped layer. Relative paths in them are relative to `place`.
pub(super) fn build(files: Vec<v1::SourceFile>, place: &Path) -> Result<Catalog, Problems> {
    let mut sources = Vec::new();
    for v1::SourceFile { path, content } in files {
        let dir = place.join(Path::new(&path).parent().unwrap_or(Path::new("")));
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
    fn only_relative_yaml_paths_pass() {
        for good in ["a.yaml", "roles/a.yml", "a/b/c.yaml"] {
            assert_eq!(path(good), Ok(()), "{good}");
        }
        for bad in ["", "/a.yaml", "../a.yaml", "a//b.yaml", "a/./b.yaml", "a.txt", "a\\b.yaml"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}

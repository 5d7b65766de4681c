//! Converts the kinds and problems of definitions to messages, and back.

use std::path::Path;

use artel_proto::v1;
use artel_roles::{DefinitionKind, Problem, Severity};
use tonic::Status;

use crate::server_paths::ServerPaths;
use crate::status::invalid_field;

/// `root` is the directory of the user's layer.
pub(super) fn problem(problem: &Problem, root: &Path, paths: &ServerPaths) -> v1::Problem {
    let severity = match problem.severity {
        Severity::Error => v1::Severity::Error,
        Severity::Warning => v1::Severity::Warning,
    };
    let location = v1::Location { file: layer_path(&problem.file, root), line: problem.line, column: problem.column };
    v1::Problem {
        severity: severity.into(),
        location: Some(location),
        message: paths.hide(&problem.message),
        snippet: problem.snippet.as_ref().map(|snippet| snippet.text.clone()).unwrap_or_default(),
        hint: problem.hint.clone().unwrap_or_default(),
        related: Vec::new(),
    }
}

/// A file relative to the root of its layer. A client's file is already.
pub(super) fn layer_path(file: &str, root: &Path) -> String {
    let path = Path::new(file);
    let below = path.strip_prefix(root).unwrap_or(path);
    // A problem may be one of the directory itself.
    if below.as_os_str().is_empty() { ".".to_owned() } else { below.to_string_lossy().into_owned() }
}

/// The kind that a request names; none for any kind.
pub(super) fn kind_filter(number: i32) -> Result<Option<DefinitionKind>, Status> {
    match v1::DefinitionKind::try_from(number) {
        Ok(v1::DefinitionKind::Unspecified) => Ok(None),
        Ok(v1::DefinitionKind::Role) => Ok(Some(DefinitionKind::Role)),
        Ok(v1::DefinitionKind::Graph) => Ok(Some(DefinitionKind::Graph)),
        Ok(v1::DefinitionKind::Model) => Ok(Some(DefinitionKind::Model)),
        Ok(v1::DefinitionKind::Router) => Ok(Some(DefinitionKind::Router)),
        Ok(v1::DefinitionKind::Adapter) => Ok(Some(DefinitionKind::Adapter)),
        Ok(v1::DefinitionKind::Knowledge) => Ok(Some(DefinitionKind::Knowledge)),
        Ok(v1::DefinitionKind::Training) => Ok(Some(DefinitionKind::Training)),
        Err(_) => Err(invalid_field("kind", format!("there is no kind {number}"))),
    }
}

pub(super) fn kind(kind: DefinitionKind) -> v1::DefinitionKind {
    match kind {
        DefinitionKind::Role => v1::DefinitionKind::Role,
        DefinitionKind::Adapter => v1::DefinitionKind::Adapter,
        DefinitionKind::Knowledge => v1::DefinitionKind::Knowledge,
        DefinitionKind::Training => v1::DefinitionKind::Training,
        DefinitionKind::Graph => v1::DefinitionKind::Graph,
        DefinitionKind::Model => v1::DefinitionKind::Model,
        DefinitionKind::Router => v1::DefinitionKind::Router,
    }
}

pub(super) fn reference(of: DefinitionKind, name: &str) -> v1::DefinitionRef {
    v1::DefinitionRef { kind: kind(of).into(), name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_relative_to_the_root_of_their_layer() {
        let path = |file| layer_path(file, Path::new("/etc/artel/catalog"));
        assert_eq!(path("/etc/artel/catalog/roles/a.yaml"), "roles/a.yaml");
        assert_eq!(path("roles/a.yaml"), "roles/a.yaml");
        assert_eq!(path("/etc/artel/catalog"), ".");
        assert_eq!(layer_path("./own/a.yaml", Path::new("./own")), "a.yaml");
    }
}

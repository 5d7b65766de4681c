//! Converts the kinds and problems of definitions to messages, and back.

use artel_proto::v1;
use artel_roles::{DefinitionKind, Problem, Severity};
use tonic::Status;

use crate::status::invalid_field;

pub(super) fn problem(problem: &Problem) -> v1::Problem {
    let severity = match problem.severity {
        Severity::Error => v1::Severity::Error,
        Severity::Warning => v1::Severity::Warning,
    };
    let location = v1::Location { file: problem.file.clone(), line: problem.line, column: problem.column };
    v1::Problem {
        severity: severity.into(),
        location: Some(location),
        message: problem.message.clone(),
        snippet: problem.snippet.as_ref().map(|snippet| snippet.text.clone()).unwrap_or_default(),
        hint: problem.hint.clone().unwrap_or_default(),
        related: Vec::new(),
    }
}

/// The kind that a request names; none for any kind.
pub(super) fn kind_filter(number: i32) -> Result<Option<DefinitionKind>, Status> {
    match v1::DefinitionKind::try_from(number) {
        Ok(v1::DefinitionKind::Unspecified) => Ok(None),
        Ok(v1::DefinitionKind::Role) => Ok(Some(DefinitionKind::Role)),
        Ok(v1::DefinitionKind::Graph) => Ok(Some(DefinitionKind::Graph)),
        Ok(v1::DefinitionKind::Model) => Ok(Some(DefinitionKind::Model)),
        Ok(v1::DefinitionKind::Router) => Ok(Some(DefinitionKind::Router)),
        Ok(v1::DefinitionKind::Adapter) => {
            Err(invalid_field("kind", "this version has no named adapters; a role names the file of its adapter"))
        }
        Err(_) => Err(invalid_field("kind", format!("there is no kind {number}"))),
    }
}

pub(super) fn kind(kind: DefinitionKind) -> v1::DefinitionKind {
    match kind {
        DefinitionKind::Role => v1::DefinitionKind::Role,
        DefinitionKind::Graph => v1::DefinitionKind::Graph,
        DefinitionKind::Model => v1::DefinitionKind::Model,
        DefinitionKind::Router => v1::DefinitionKind::Router,
    }
}

pub(super) fn reference(of: DefinitionKind, name: &str) -> v1::DefinitionRef {
    v1::DefinitionRef { kind: kind(of).into(), name: name.to_owned() }
}

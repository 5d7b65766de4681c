//! Errors as gRPC statuses: a safe message for the client, the cause for the log.

use std::collections::HashMap;
use std::time::Duration;

use artel_actors::Error;
use artel_proto::v1::ErrorReason;
use artel_task::event::FailureCode;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

const DOMAIN: &str = "artel.v1";
/// When it is worth asking again where a queue is full.
const RETRY: Duration = Duration::from_secs(2);

/// A status with its reason.
pub(super) fn status(code: Code, reason: ErrorReason, message: impl Into<String>) -> Status {
    with(code, reason, message, [], |_| {})
}

pub(super) fn with<const N: usize>(
    code: Code,
    reason: ErrorReason,
    message: impl Into<String>,
    metadata: [(&str, &str); N],
    more: impl FnOnce(&mut ErrorDetails),
) -> Status {
    let metadata: HashMap<String, String> = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let reason = reason.as_str_name().trim_start_matches("ERROR_REASON_");
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    more(&mut details);
    Status::with_error_details(code, message, details)
}

/// What is wrong with a request: all of it.
#[derive(Default)]
pub(super) struct Violations(Vec<FieldViolation>);

impl Violations {
    pub(super) fn add(&mut self, field: &str, description: impl Into<String>) {
        self.0.push(FieldViolation::new(field, description));
    }

    /// Notes the violation if there is one.
    pub(super) fn take<T>(&mut self, field: &str, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|description| self.add(field, description)).ok()
    }

    pub(super) fn finish(self) -> Result<(), Status> {
        if self.0.is_empty() {
            return Ok(());
        }
        let said: Vec<String> = self.0.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
        let more = |details: &mut ErrorDetails| {
            details.set_bad_request(self.0);
        };
        Err(with(Code::InvalidArgument, ErrorReason::BadRequest, said.join("; "), [], more))
    }
}

/// A single violation.
pub(super) fn bad(field: &str, description: impl Into<String>) -> Status {
    let mut violations = Violations::default();
    violations.add(field, description);
    violations.finish().expect_err("there is a violation")
}

/// Something that does not exist, with the nearest name that does.
pub(super) fn missing<'a>(
    reason: ErrorReason,
    kind: &str,
    name: &str,
    message: &str,
    names: impl Iterator<Item = &'a str>,
) -> Status {
    let near = artel_roles::nearest(name, names).map(str::to_owned);
    let message = near.as_ref().map_or_else(|| message.to_owned(), |near| format!("{message}; did you mean `{near}`?"));
    let metadata = [("nearest", near.as_deref().unwrap_or(""))];
    let resource = |details: &mut ErrorDetails| {
        details.set_resource_info(kind, name, "", "");
    };
    match near.is_some() {
        true => with(Code::NotFound, reason, message, metadata, resource),
        false => with(Code::NotFound, reason, message, [], resource),
    }
}

/// The one table from what the crew says to what clients hear.
pub(super) fn of(error: Error, catalog: &artel_roles::Catalog) -> Status {
    use ErrorReason as R;
    let message = error.to_string();
    let retry = |details: &mut ErrorDetails| {
        details.set_retry_info(Some(RETRY));
    };
    let definition = R::DefinitionNotFound;
    match error {
        Error::NoGraph { name } => {
            missing(definition, "graph", &name, &message, catalog.graphs().keys().map(artel_task::GraphName::as_str))
        }
        Error::NoRole { name } => {
            missing(definition, "role", &name, &message, catalog.roles().keys().map(artel_task::RoleName::as_str))
        }
        Error::NoModel { name } => {
            missing(definition, "model", &name, &message, catalog.models().keys().map(artel_task::ModelName::as_str))
        }
        Error::NoRouter { node, .. } => missing(definition, "node", &node, &message, std::iter::empty()),
        Error::NoTarget => bad("target", message),
        Error::NoCandidates => bad("roles", message),
        Error::NoTask(task) => missing(R::TaskNotFound, "task", &task.to_string(), &message, std::iter::empty()),
        Error::NoStep { step, .. } => missing(R::StepNotFound, "step", &step, &message, std::iter::empty()),
        Error::NotWaiting { .. } => status(Code::FailedPrecondition, R::NotWaiting, message),
        Error::AmbiguousStep { .. } => bad("step_id", message),
        Error::InvalidAnswer(_) => bad("answer", message),
        Error::ForkIncompatible { .. } => status(Code::FailedPrecondition, R::CatalogUnsuitable, message),
        Error::SeqOutOfRange { last, .. } => {
            let last = last.0.to_string();
            with(Code::OutOfRange, R::SeqOutOfRange, message, [("last_seq", &last)], |_| {})
        }
        Error::Suspended(_) => status(Code::FailedPrecondition, R::Journal, message),
        Error::TooManyTasks(_) => with(Code::ResourceExhausted, R::TooManyTasks, message, [], retry),
        Error::InsufficientMemory(_) => status(Code::ResourceExhausted, R::NoRoom, message),
        Error::ShuttingDown | Error::Stopped => with(Code::Unavailable, R::ShuttingDown, message, [], retry),
        Error::Failed(failure) => match failure.code {
            FailureCode::ModelUnavailable | FailureCode::Timeout | FailureCode::Interrupted => {
                with(Code::Unavailable, R::ModelUnavailable, message, [], retry)
            }
            _ => status(Code::FailedPrecondition, R::ModelUnavailable, message),
        },
        Error::CatalogChanged { found, .. } => {
            with(Code::Aborted, R::CatalogChanged, message, [("catalog_version", found.as_str())], |_| {})
        }
        Error::Journal(error) => journal(&error),
        other => {
            tracing::error!(error = %other, "an error without a status");
            status(Code::Internal, R::Internal, "a fault of the daemon; its log says more")
        }
    }
}

/// Paths and what SQLite said stay in the log.
pub(super) fn journal(error: &artel_journal::Error) -> Status {
    use artel_journal::Error as E;
    match error {
        E::NoTask { task } => {
            let message = format!("there is no task {task}, or it is no longer kept");
            missing(ErrorReason::TaskNotFound, "task", &task.to_string(), &message, std::iter::empty())
        }
        E::RequestReused { request, task } => {
            let (message, task) =
                (format!("request id `{}` was used for something else", request.as_str()), task.to_string());
            with(Code::AlreadyExists, ErrorReason::RequestIdReused, message, [("task_id", &task)], |_| {})
        }
        E::Closed { .. } => status(Code::Unavailable, ErrorReason::ShuttingDown, "the daemon is shutting down"),
        fault => {
            tracing::error!(error = %fault, "the journal failed");
            let message = match fault {
                E::Full { .. } => "the daemon's disk is full; it takes no new tasks until there is room",
                E::Broken { .. } => "the daemon's journal takes no more writes until it is restarted",
                _ => "the daemon's journal failed; its log says more",
            };
            status(Code::Unavailable, ErrorReason::Journal, message)
        }
    }
}

//! Converts errors to gRPC statuses: a message without internal details for the client, the cause in the log.

use std::collections::HashMap;
use std::time::Duration;

use artel_actors::Error;
use artel_proto::v1::ErrorReason;
use artel_task::event::FailureCode;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

/// The message of an internal error.
pub(super) const INTERNAL_MESSAGE: &str = "internal error of the daemon; see its log";
const ERROR_DOMAIN: &str = "artel.v1";
/// The delay in `RetryInfo` when a queue is full.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// A status with a reason.
pub(super) fn status(code: Code, reason: ErrorReason, message: impl Into<String>) -> Status {
    status_with_details(code, reason, message, [], |_| {})
}

/// A status with a reason, metadata and further details.
pub(super) fn status_with_details<const N: usize>(
    code: Code,
    reason: ErrorReason,
    message: impl Into<String>,
    metadata: [(&str, &str); N],
    more: impl FnOnce(&mut ErrorDetails),
) -> Status {
    let metadata: HashMap<String, String> = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let reason = reason.as_str_name().trim_start_matches("ERROR_REASON_");
    let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
    more(&mut details);
    Status::with_error_details(code, message, details)
}

/// All violations in a request.
#[derive(Default)]
pub(super) struct Violations(Vec<FieldViolation>);

impl Violations {
    pub(super) fn add(&mut self, field: &str, description: impl Into<String>) {
        self.0.push(FieldViolation::new(field, description));
    }

    /// Adds the error, if there is one.
    pub(super) fn check<T>(&mut self, field: &str, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|description| self.add(field, description)).ok()
    }

    pub(super) fn finish(self) -> Result<(), Status> {
        if self.0.is_empty() {
            return Ok(());
        }
        let messages: Vec<String> = self.0.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
        let more = |details: &mut ErrorDetails| {
            details.set_bad_request(self.0);
        };
        Err(status_with_details(Code::InvalidArgument, ErrorReason::BadRequest, messages.join("; "), [], more))
    }
}

/// A single violation.
pub(super) fn invalid_field(field: &str, description: impl Into<String>) -> Status {
    let mut violations = Violations::default();
    violations.add(field, description);
    violations.finish().expect_err("a violation was added")
}

/// The status for a missing resource, with the most similar existing name.
pub(super) fn not_found<'a>(
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
        true => status_with_details(Code::NotFound, reason, message, metadata, resource),
        false => status_with_details(Code::NotFound, reason, message, [], resource),
    }
}

/// The table from runtime errors to statuses.
pub(super) fn from_error(error: Error, catalog: &artel_roles::Catalog) -> Status {
    use ErrorReason as R;
    let message = error.to_string();
    let retry = |details: &mut ErrorDetails| {
        details.set_retry_info(Some(RETRY_DELAY));
    };
    let definition = R::DefinitionNotFound;
    match error {
        Error::NoGraph { name } => {
            not_found(definition, "graph", &name, &message, catalog.graphs().keys().map(artel_task::GraphName::as_str))
        }
        Error::NoRole { name } => {
            not_found(definition, "role", &name, &message, catalog.roles().keys().map(artel_task::RoleName::as_str))
        }
        Error::NoModel { name } => {
            not_found(definition, "model", &name, &message, catalog.models().keys().map(artel_task::ModelName::as_str))
        }
        Error::NoRouter { node, .. } => not_found(definition, "node", &node, &message, std::iter::empty()),
        Error::NoTarget => invalid_field("target", message),
        Error::NoCandidates => invalid_field("roles", message),
        Error::NoTask(task) => not_found(R::TaskNotFound, "task", &task.to_string(), &message, std::iter::empty()),
        Error::NoStep { step, .. } => not_found(R::StepNotFound, "step", &step, &message, std::iter::empty()),
        Error::NotWaiting { .. } => status(Code::FailedPrecondition, R::NotWaiting, message),
        Error::AmbiguousStep { .. } => invalid_field("step_id", message),
        Error::InvalidAnswer(_) => invalid_field("answer", message),
        Error::ForkIncompatible { .. } => status(Code::FailedPrecondition, R::CatalogIncompatible, message),
        Error::SeqOutOfRange { last, .. } => {
            let last = last.0.to_string();
            status_with_details(Code::OutOfRange, R::SeqOutOfRange, message, [("last_seq", &last)], |_| {})
        }
        Error::Suspended(_) => status(Code::FailedPrecondition, R::Journal, message),
        Error::TooManyTasks(_) => status_with_details(Code::ResourceExhausted, R::TooManyTasks, message, [], retry),
        Error::InsufficientMemory(_) => status(Code::ResourceExhausted, R::InsufficientMemory, message),
        Error::ShuttingDown | Error::Stopped => {
            status_with_details(Code::Unavailable, R::ShuttingDown, message, [], retry)
        }
        Error::Failed(failure) => match failure.code {
            FailureCode::ModelUnavailable | FailureCode::Timeout | FailureCode::Interrupted => {
                status_with_details(Code::Unavailable, R::ModelUnavailable, message, [], retry)
            }
            _ => status(Code::FailedPrecondition, R::ModelUnavailable, message),
        },
        Error::CatalogChanged { found, .. } => status_with_details(
            Code::Aborted,
            R::CatalogChanged,
            message,
            [("catalog_version", found.as_str())],
            |_| {},
        ),
        Error::Journal(error) => journal(&error),
        other => {
            tracing::error!(error = %other, "unexpected error in a call");
            status(Code::Internal, R::Internal, INTERNAL_MESSAGE)
        }
    }
}

/// Paths and SQLite messages are only logged.
pub(super) fn journal(error: &artel_journal::Error) -> Status {
    use artel_journal::Error as E;
    match error {
        E::NoTask { task } => {
            let message = format!("there is no task {task}, or it is no longer retained");
            not_found(ErrorReason::TaskNotFound, "task", &task.to_string(), &message, std::iter::empty())
        }
        E::RequestReused { request, task } => {
            let (message, task) =
                (format!("request id `{}` was used with another request", request.as_str()), task.to_string());
            status_with_details(
                Code::AlreadyExists,
                ErrorReason::RequestIdReused,
                message,
                [("task_id", &task)],
                |_| {},
            )
        }
        E::Closed { .. } => status(Code::Unavailable, ErrorReason::ShuttingDown, "the daemon is shutting down"),
        fault => {
            tracing::error!(error = %fault, "the journal failed");
            let message = match fault {
                E::Full { .. } => "the daemon's disk is full; it accepts no new tasks until space is freed",
                E::Failed { .. } => "the daemon's journal is read-only until the daemon is restarted",
                _ => "the daemon's journal failed; see its log",
            };
            status(Code::Unavailable, ErrorReason::Journal, message)
        }
    }
}

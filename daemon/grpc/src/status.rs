//! Converts errors to gRPC statuses: a message without internal details for the client, the cause in the log.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use artel_actors::{Error, QuotaExcess};
use artel_proto::v1::ErrorReason;
use artel_roles::{Definition, DefinitionKind};
use artel_task::CallerName;
use artel_task::event::{Failure, FailureCode};
use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::server_paths::ServerPaths;

/// What a call returns.
pub(crate) type RpcResponse<T> = Result<Response<T>, Status>;

const ERROR_DOMAIN: &str = "artel.v1";
/// The delay in `RetryInfo` when a queue is full.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// That when a caller has as many tasks open as it may: some time for one of them to end.
const OPEN_TASK_RETRY_DELAY: Duration = Duration::from_secs(5);

/// A status with a reason.
pub(crate) fn status(code: Code, reason: ErrorReason, message: impl Into<String>) -> Status {
    status_with_details(code, reason, message, [], |_| {})
}

/// A status with a reason, metadata and further details.
pub(crate) fn status_with_details<const N: usize>(
    code: Code,
    reason: ErrorReason,
    message: impl Into<String>,
    metadata: [(&str, &str); N],
    more: impl FnOnce(&mut ErrorDetails),
) -> Status {
    let metadata: HashMap<String, String> = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let mut details = ErrorDetails::with_error_info(reason_text(reason), ERROR_DOMAIN, metadata);
    more(&mut details);
    Status::with_error_details(code, message, details)
}

/// A reason as errors and metrics write it.
pub(crate) fn reason_text(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}

/// The status while the catalogs of other clients are checked.
pub(crate) fn catalog_busy() -> Status {
    let message = "the catalogs of other clients are being checked: try again later";
    status_with_details(Code::ResourceExhausted, ErrorReason::CatalogBusy, message, [], retry_later)
}

/// The status of a call beyond a limit of its caller; `limit` is the name of the field of `AccessLimits`.
pub(crate) fn caller_limit(message: impl Into<String>, caller: &CallerName, limit: &str, delay: Duration) -> Status {
    let metadata = [("caller", caller.as_str()), ("limit", limit)];
    let more = |details: &mut ErrorDetails| {
        details.set_retry_info(Some(delay));
    };
    status_with_details(Code::ResourceExhausted, ErrorReason::CallerLimit, message, metadata, more)
}

fn retry_later(details: &mut ErrorDetails) {
    details.set_retry_info(Some(RETRY_DELAY));
}

/// All violations in a request.
#[derive(Default)]
pub(crate) struct Violations(Vec<FieldViolation>);

impl Violations {
    pub(crate) fn add(&mut self, field: &str, description: impl Display) {
        self.0.push(FieldViolation::new(field, description.to_string()));
    }

    /// Adds the error, if there is one.
    pub(crate) fn check<T>(&mut self, field: &str, parsed: Result<T, impl Display>) -> Option<T> {
        parsed.map_err(|error| self.add(field, error)).ok()
    }

    pub(crate) fn finish(self) -> Result<(), Status> {
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
pub(crate) fn invalid_field(field: &str, description: impl Display) -> Status {
    let mut violations = Violations::default();
    violations.add(field, description);
    violations.finish().expect_err("a violation was added")
}

/// The status for a missing resource, with the most similar existing name.
pub(crate) fn not_found<'a>(
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

/// The status for a name that no definition of this kind has: with what else has it, and the most similar name of the kind.
pub(crate) fn no_definition(catalog: &artel_roles::Catalog, kind: DefinitionKind, name: &str) -> Status {
    let of_name = |definition: &&Definition| definition.name == name && definition.kind != kind;
    let others: Vec<&str> =
        catalog.definitions().iter().filter(of_name).map(|definition| definition.kind.with_article()).collect();
    let message = match others.is_empty() {
        true => format!("there is no {kind} `{name}`"),
        false => format!("there is no {kind} `{name}`, but {} of this name", others.join(" and ")),
    };
    let names = catalog.definitions().iter().filter(|d| d.kind == kind).map(|d| d.name.as_str());
    not_found(ErrorReason::DefinitionNotFound, kind.key(), name, &message, names)
}

/// A fault of the daemon's own, whose cause is in the log.
pub(crate) fn internal() -> Status {
    status(Code::Internal, ErrorReason::Internal, "internal error of the daemon; see its log")
}

/// The status of a load that a client asked for by name and that failed: the same again fails again.
pub(crate) fn failed_load(failure: &Failure, paths: &ServerPaths) -> Status {
    status(Code::FailedPrecondition, ErrorReason::ModelUnavailable, paths.hide(&failure.message))
}

/// The table from runtime errors to statuses. The messages name no directory of the daemon.
pub(crate) fn from_error(error: Error, catalog: &artel_roles::Catalog, paths: &ServerPaths) -> Status {
    use ErrorReason as R;
    let message = paths.hide(&error.to_string());
    match error {
        Error::NoGraph { name } => no_definition(catalog, DefinitionKind::Graph, &name),
        Error::NoRole { name } => no_definition(catalog, DefinitionKind::Role, &name),
        Error::NoModel { name } => no_definition(catalog, DefinitionKind::Model, &name),
        Error::WrongPurpose { found, needed, .. } => {
            let metadata = [("use", found.as_str()), ("needed", needed.as_str())];
            status_with_details(Code::FailedPrecondition, R::WrongUse, message, metadata, |_| {})
        }
        Error::EngineBusy { .. } => {
            status_with_details(Code::ResourceExhausted, R::EngineBusy, message, [], retry_later)
        }
        Error::UnusableModel(_) => status(Code::FailedPrecondition, R::ModelUnavailable, message),
        Error::NoRouter { node, .. } => not_found(R::DefinitionNotFound, "node", &node, &message, std::iter::empty()),
        Error::NoTarget => invalid_field("target", message),
        Error::ToolsOfGraph | Error::ToolsOfRole { .. } => invalid_field("tools", message),
        Error::NoCandidates => invalid_field("roles", message),
        Error::NoTask(task) => not_found(R::TaskNotFound, "task", &task.to_string(), &message, std::iter::empty()),
        Error::NoStep { step, .. } => not_found(R::StepNotFound, "step", &step, &message, std::iter::empty()),
        Error::NoAnswer { .. } => status(Code::FailedPrecondition, R::NoAnswer, message),
        Error::NotWaiting { .. } => status(Code::FailedPrecondition, R::NotWaiting, message),
        Error::AmbiguousStep { .. } => invalid_field("step_id", message),
        Error::InvalidAnswer(_) => invalid_field("answer", message),
        Error::AnswerOptions(faults) => {
            let mut violations = Violations::default();
            faults.iter().for_each(|fault| violations.add(&fault.field, &fault.reason));
            violations.finish().err().unwrap_or_else(internal)
        }
        Error::Erased(_) => status(Code::FailedPrecondition, R::Erased, message),
        Error::NotPermitted => status(Code::PermissionDenied, R::OtherCaller, message),
        Error::EraseIncomplete(_) => {
            tracing::error!(error = %message, "an erase is incomplete");
            status(Code::Unavailable, R::Journal, message)
        }
        Error::ForkIncompatible { .. } => status(Code::FailedPrecondition, R::CatalogIncompatible, message),
        Error::SeqOutOfRange { last, .. } => {
            let last = last.0.to_string();
            status_with_details(Code::OutOfRange, R::SeqOutOfRange, message, [("last_seq", &last)], |_| {})
        }
        Error::Suspended(_) => status(Code::FailedPrecondition, R::Journal, message),
        Error::SetAside { .. } => status(Code::FailedPrecondition, R::SetAside, message),
        Error::TooManyTasks(_) => {
            status_with_details(Code::ResourceExhausted, R::TooManyTasks, message, [], retry_later)
        }
        // A place is free when one of its own tasks ends, at a time that is not known.
        Error::Quota(QuotaExcess::OpenTasks { caller, .. }) => {
            caller_limit(message, &caller, "open_tasks", OPEN_TASK_RETRY_DELAY)
        }
        Error::Quota(QuotaExcess::Tokens { caller, delay, .. }) => {
            caller_limit(message, &caller, "tokens_per_day", delay)
        }
        Error::InsufficientMemory(_) => status(Code::ResourceExhausted, R::InsufficientMemory, message),
        Error::ShuttingDown | Error::Stopped => {
            status_with_details(Code::Unavailable, R::ShuttingDown, message, [], retry_later)
        }
        Error::Failed(failure) => match failure.code {
            FailureCode::ModelUnavailable | FailureCode::Timeout | FailureCode::Interrupted => {
                status_with_details(Code::Unavailable, R::ModelUnavailable, message, [], retry_later)
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
            internal()
        }
    }
}

/// Paths and SQLite messages are only logged.
pub(crate) fn journal(error: &artel_journal::Error) -> Status {
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
        E::Corrupt { detail, .. } if detail.task().is_some() => {
            let message = format!("the task cannot be read: {}", detail.set_aside_reason());
            status(Code::FailedPrecondition, ErrorReason::Journal, message)
        }
        E::Closed { .. } => status(Code::Unavailable, ErrorReason::ShuttingDown, "the daemon is shutting down"),
        fault => {
            tracing::error!(error = %fault, "the journal failed");
            let message = match fault {
                E::Full { .. } => "the daemon's disk is full; it accepts no new tasks until space is freed",
                E::Purge { .. } => {
                    "the text is erased from the daemon's journal and may be left in its files, for which there must be as much free \
                     space as the journal takes; erase it again, or restart the daemon"
                }
                E::LogInUse { .. } => {
                    "the text is erased from the daemon's journal and may be left in its log, which another program reads; end that \
                     program and erase it again"
                }
                E::Failed { .. } => "the daemon's journal is read-only until the daemon is restarted",
                _ => "the daemon's journal failed; see its log",
            };
            status(Code::Unavailable, ErrorReason::Journal, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_another_kind_is_told_as_what_it_is() {
        let catalog = artel_roles::Catalog::shipped();
        let message = |kind, name| no_definition(&catalog, kind, name).message().to_owned();
        assert_eq!(message(DefinitionKind::Role, "mentor"), "there is no role `mentor`, but a graph of this name");
        assert_eq!(message(DefinitionKind::Graph, "critic"), "there is no graph `critic`, but a role of this name");
        assert_eq!(
            message(DefinitionKind::Adapter, "smollm2"),
            "there is no adapter `smollm2`, but a model of this name"
        );
        assert_eq!(message(DefinitionKind::Role, "crtic"), "there is no role `crtic`; did you mean `critic`?");
    }
}

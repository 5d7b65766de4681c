//! What the gRPC services refuse, and why a task failed, as errors of OpenAI.

use std::time::Duration;

use artel_proto::v1::{ErrorReason, Failure, FailureCode};
use axum::http::StatusCode;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::api_error::{ApiError, INVALID_REQUEST, SERVER_ERROR};
use crate::field_names::FieldNames;

/// `type` of an error of a caller that asks for too much.
const RATE_LIMIT: &str = "rate_limit_error";
/// `code` of the errors that end streams when the daemon stops, or its journal fails.
const SHUTTING_DOWN: &str = "shutting_down";
const JOURNAL_UNAVAILABLE: &str = "journal_unavailable";
/// When a client may try again whose task met a full queue: some time for a step to end.
const QUEUE_RETRY_DELAY: Duration = Duration::from_secs(2);

impl ApiError {
    /// What a service refused. The names of its fields become those of the request.
    pub(crate) fn from_status(status: &Status, names: &FieldNames) -> Self {
        let reason = status.get_details_error_info().and_then(|info| {
            let task = info.metadata.get("task_id").map(|task| task.as_str().into());
            Some((ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason))?, task))
        });
        let (reason, task) = reason.unwrap_or((ErrorReason::Unspecified, None));
        let (http, kind, code) = codes(status.code(), reason);
        let mut error = Self { task, ..Self::new(http, kind, status.message()).with_code(code) };
        error.retry_after = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
        let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
        if let Some(first) = violations.first() {
            error.param = Some(names.translate(&first.field));
            let texts =
                violations.iter().map(|fault| format!("`{}`: {}", names.translate(&fault.field), fault.description));
            error.message = texts.collect::<Vec<_>>().join("; ");
        } else if reason == ErrorReason::DefinitionNotFound {
            error.param = Some("model".to_owned());
        } else if reason == ErrorReason::RequestIdReused {
            error.param = Some("Idempotency-Key".to_owned());
            error.message =
                "this `Idempotency-Key` was used with another request: choose another key for each request".to_owned();
        }
        error
    }

    /// Why a task failed.
    pub(crate) fn from_failure(failure: &Failure, task: &str) -> Self {
        use FailureCode as F;
        let (status, kind, code) = match failure.code() {
            F::ContextOverflow => (StatusCode::BAD_REQUEST, INVALID_REQUEST, "context_length_exceeded"),
            F::QueueFull => (StatusCode::TOO_MANY_REQUESTS, RATE_LIMIT, "rate_limit_exceeded"),
            F::ModelUnavailable => (StatusCode::SERVICE_UNAVAILABLE, SERVER_ERROR, "model_unavailable"),
            F::Interrupted => (StatusCode::SERVICE_UNAVAILABLE, SERVER_ERROR, "interrupted"),
            F::Timeout | F::Idle | F::LimitTime | F::NoAnswer => (StatusCode::GATEWAY_TIMEOUT, SERVER_ERROR, "timeout"),
            F::OutputInvalid => (StatusCode::BAD_GATEWAY, SERVER_ERROR, "output_invalid"),
            F::LimitSteps | F::LimitTokens => (StatusCode::BAD_GATEWAY, SERVER_ERROR, "graph_limit"),
            F::Cancelled => (StatusCode::CONFLICT, INVALID_REQUEST, "task_cancelled"),
            F::Template | F::Condition | F::NoEdge | F::JoinStuck | F::Router | F::Items => {
                (StatusCode::INTERNAL_SERVER_ERROR, SERVER_ERROR, "graph_failed")
            }
            F::Internal | F::Unspecified => (StatusCode::INTERNAL_SERVER_ERROR, SERVER_ERROR, "internal_error"),
        };
        let error = Self::new(status, kind, &*failure.message).with_code(code).with_task(task);
        match failure.code() {
            F::QueueFull => error.with_retry_after(QUEUE_RETRY_DELAY),
            F::ContextOverflow => error.with_param("messages"),
            _ => error,
        }
    }

    /// A task that was cancelled.
    pub(crate) fn cancelled(task: &str, reason: &str) -> Self {
        let message = format!("the task {task} was cancelled: {reason}");
        Self::new(StatusCode::CONFLICT, INVALID_REQUEST, message).with_code("task_cancelled").with_task(task)
    }

    /// A task that waits until a person takes it up again.
    pub(crate) fn set_aside(task: &str, reason: &str) -> Self {
        let message =
            format!("the task {task} is set aside ({reason}): take it up again with `artel task resume {task}`");
        Self::new(StatusCode::CONFLICT, SERVER_ERROR, message).with_code("task_set_aside").with_task(task)
    }

    /// A stream that ended before its task did.
    pub(crate) fn interrupted(task: &str) -> Self {
        let message =
            format!("the stream of task {task} was interrupted; the same `Idempotency-Key` attaches to it again");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER_ERROR, message).with_code("interrupted").with_task(task)
    }

    /// Whether its task waits for the next start of the daemon.
    pub(crate) fn is_of_stopping_daemon(&self) -> bool {
        matches!(self.code, Some(SHUTTING_DOWN | JOURNAL_UNAVAILABLE))
    }

    /// A step was run again and answers differently from what was sent already.
    pub(crate) fn answer_changed(task: &str) -> Self {
        let message = format!(
            "a step of task {task} was run again, and its answer differs from the part that was sent already: discard it and send \
             the request again; with an `Idempotency-Key`, the same key gets the new answer"
        );
        Self::new(StatusCode::BAD_GATEWAY, SERVER_ERROR, message).with_code("answer_changed").with_task(task)
    }
}

/// The status of HTTP, the `type` and the `code` of what a service refuses.
fn codes(code: Code, reason: ErrorReason) -> (StatusCode, &'static str, &'static str) {
    use ErrorReason as R;
    let refused = |status, code| (status, INVALID_REQUEST, code);
    let failed = |status, code| (status, SERVER_ERROR, code);
    match reason {
        R::DefinitionNotFound => return refused(StatusCode::NOT_FOUND, "model_not_found"),
        R::TaskNotFound | R::StepNotFound => return refused(StatusCode::NOT_FOUND, "not_found"),
        R::RequestIdReused => return (StatusCode::CONFLICT, "idempotency_error", "idempotency_key_reused"),
        R::WrongUse => return refused(StatusCode::BAD_REQUEST, "wrong_model"),
        R::TooLarge => return refused(StatusCode::BAD_REQUEST, "too_large"),
        R::Erased => return refused(StatusCode::CONFLICT, "task_erased"),
        R::SetAside => return failed(StatusCode::CONFLICT, "task_set_aside"),
        R::ModelUnavailable => return failed(StatusCode::SERVICE_UNAVAILABLE, "model_unavailable"),
        R::InsufficientMemory => return failed(StatusCode::SERVICE_UNAVAILABLE, "insufficient_memory"),
        R::Journal => return failed(StatusCode::SERVICE_UNAVAILABLE, JOURNAL_UNAVAILABLE),
        R::ShuttingDown => return failed(StatusCode::SERVICE_UNAVAILABLE, SHUTTING_DOWN),
        _ => {}
    }
    match code {
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => {
            refused(StatusCode::BAD_REQUEST, "invalid_value")
        }
        Code::NotFound => refused(StatusCode::NOT_FOUND, "not_found"),
        Code::AlreadyExists | Code::Aborted => refused(StatusCode::CONFLICT, "conflict"),
        Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, RATE_LIMIT, "rate_limit_exceeded"),
        Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "authentication_error", "invalid_api_key"),
        Code::PermissionDenied => (StatusCode::FORBIDDEN, "permission_error", "insufficient_permissions"),
        Code::Unimplemented => failed(StatusCode::NOT_IMPLEMENTED, "not_implemented"),
        Code::DeadlineExceeded => failed(StatusCode::GATEWAY_TIMEOUT, "timeout"),
        Code::Unavailable | Code::Cancelled => failed(StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => {
            failed(StatusCode::INTERNAL_SERVER_ERROR, "internal_error")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use axum::http::header::RETRY_AFTER;
    use axum::response::IntoResponse as _;
    use tonic_types::ErrorDetails;

    use super::*;

    fn status(code: Code, reason: &str, more: impl FnOnce(&mut ErrorDetails)) -> ApiError {
        let mut details = ErrorDetails::with_error_info(reason, "artel.v1", HashMap::new());
        more(&mut details);
        ApiError::from_status(&Status::with_error_details(code, "as it is", details), &FieldNames::default())
    }

    #[test]
    fn a_field_is_named_as_the_client_wrote_it() {
        let error = status(Code::InvalidArgument, "BAD_REQUEST", |details| {
            details.add_bad_request_violation("submit.sampling.temperature", "is 3, and must be from 0 to 2");
            details.add_bad_request_violation("submit.labels", "has 70 entries, the limit is 64");
        });
        assert_eq!((error.status, error.param.as_deref()), (StatusCode::BAD_REQUEST, Some("temperature")));
        assert_eq!(
            error.message,
            "`temperature`: is 3, and must be from 0 to 2; `metadata`: has 70 entries, the limit is 64"
        );
    }

    #[test]
    fn a_caller_that_asks_for_too_much_is_told_when_to_come_again() {
        let error = status(Code::ResourceExhausted, "CALLER_LIMIT", |details| {
            details.set_retry_info(Some(Duration::from_millis(1200)));
        });
        assert_eq!((error.status, error.code), (StatusCode::TOO_MANY_REQUESTS, Some("rate_limit_exceeded")));
        assert_eq!(error.into_response().headers()[RETRY_AFTER], "2", "whole seconds, rounded up");
    }

    #[test]
    fn each_kind_of_refusal_has_its_status() {
        for (code, reason, http, word) in [
            (Code::NotFound, "DEFINITION_NOT_FOUND", 404, "model_not_found"),
            (Code::AlreadyExists, "REQUEST_ID_REUSED", 409, "idempotency_key_reused"),
            (Code::FailedPrecondition, "WRONG_USE", 400, "wrong_model"),
            (Code::FailedPrecondition, "MODEL_UNAVAILABLE", 503, "model_unavailable"),
            (Code::Unavailable, "SHUTTING_DOWN", 503, "shutting_down"),
            (Code::PermissionDenied, "MISSING_SCOPE", 403, "insufficient_permissions"),
            (Code::Internal, "INTERNAL", 500, "internal_error"),
            (Code::Unknown, "FROM_A_LATER_VERSION", 500, "internal_error"),
        ] {
            let error = status(code, reason, |_| {});
            assert_eq!((error.status.as_u16(), error.code), (http, Some(word)), "{reason}");
        }
    }

    #[test]
    fn each_kind_of_failure_has_its_status() {
        use FailureCode as F;
        for (code, http, word) in [
            (F::ContextOverflow, 400, "context_length_exceeded"),
            (F::QueueFull, 429, "rate_limit_exceeded"),
            (F::ModelUnavailable, 503, "model_unavailable"),
            (F::Timeout, 504, "timeout"),
            (F::OutputInvalid, 502, "output_invalid"),
            (F::Cancelled, 409, "task_cancelled"),
            (F::Router, 500, "graph_failed"),
        ] {
            let failure = Failure { code: code.into(), message: "m".to_owned(), step_id: String::new() };
            let error = ApiError::from_failure(&failure, "t");
            assert_eq!((error.status.as_u16(), error.code, error.task.as_deref()), (http, Some(word), Some("t")));
        }
    }
}

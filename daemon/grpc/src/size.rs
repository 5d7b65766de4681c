//! Size limits of messages, and the errors for messages that exceed them.

use artel_proto::v1::{self, ErrorReason};
use axum::response::Response;
use prost::Message as _;
use tonic::{Code, Status};

use crate::status::{invalid_field, status_with_details};

/// The largest request: a catalog of many files. The input of a task is limited to 1 MiB.
pub(crate) const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;
/// The default limit of received messages in gRPC clients of all languages.
pub(crate) const DEFAULT_RESPONSE_BYTES: usize = 4 * 1024 * 1024;
/// The largest response that a client can request: a task of some thousand steps.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// The prefix of tonic's message for a request that is too large. The two sizes follow.
const TOO_LARGE_PREFIX: &str = "Error, decoded message length too large: found ";

/// The largest response that the client accepts.
pub(crate) fn limit(max_bytes: u64) -> Result<usize, Status> {
    match usize::try_from(max_bytes) {
        Ok(0) => Ok(DEFAULT_RESPONSE_BYTES),
        Ok(bytes) if bytes <= MAX_RESPONSE_BYTES => Ok(bytes),
        _ => Err(invalid_field("max_bytes", format!("the limit is {MAX_RESPONSE_BYTES}"))),
    }
}

/// A task, or an error if it exceeds the limit.
pub(crate) fn within_limit(task: v1::Task, limit: usize) -> Result<v1::Task, Status> {
    let bytes = task.encoded_len();
    if bytes <= limit {
        return Ok(task);
    }
    let message = format!(
        "task {} has {bytes} bytes and the limit is {limit}: omit `steps`, and `result` or `input` if necessary, with \
         `read_mask`; or watch the task, which sends each step separately; or raise the limit with `max_bytes`",
        task.id
    );
    Err(too_large(Code::ResourceExhausted, bytes, limit, message))
}

/// A task without fields that would exceed the default limit, for responses to calls that have already taken effect.
pub(crate) fn shortened(mut task: v1::Task) -> v1::Task {
    let parts: [fn(&mut v1::Task); 3] =
        [|task| task.steps.clear(), |task| task.result = None, |task| task.input.clear()];
    for omit in parts {
        if task.encoded_len() <= DEFAULT_RESPONSE_BYTES {
            break;
        }
        omit(&mut task);
    }
    task
}

/// An event, or an error if it exceeds the default limit. Only events in journals of earlier versions do.
pub(crate) fn event(event: v1::Event) -> Result<v1::Event, Status> {
    let bytes = event.encoded_len();
    if bytes <= DEFAULT_RESPONSE_BYTES {
        return Ok(event);
    }
    let message = format!(
        "event {seq} has {bytes} bytes and the limit is {DEFAULT_RESPONSE_BYTES}: continue with `after_seq` {seq}",
        seq = event.seq
    );
    Err(too_large(Code::ResourceExhausted, bytes, DEFAULT_RESPONSE_BYTES, message))
}

/// Adds details to the error for a request that is too large.
pub(crate) fn with_size_details(response: Response) -> Response {
    let Some(bytes) = rejected_bytes(&response) else { return response };
    let message = format!(
        "the request has {bytes} bytes, the limit is {MAX_REQUEST_BYTES} (4 MiB): the text of a task or an answer has 1 MiB \
         at most; for a larger catalog, use `artel serve --catalog`"
    );
    too_large(Code::InvalidArgument, bytes, MAX_REQUEST_BYTES, message).into_http()
}

/// The bytes of a request that tonic rejected as too large.
fn rejected_bytes(response: &Response) -> Option<usize> {
    let status = Status::from_header_map(response.headers()).filter(|status| status.code() == Code::OutOfRange)?;
    status.message().strip_prefix(TOO_LARGE_PREFIX)?.split(' ').next()?.parse().ok()
}

pub(crate) fn too_large(code: Code, bytes: usize, limit: usize, message: String) -> Status {
    let (bytes, limit) = (bytes.to_string(), limit.to_string());
    status_with_details(code, ErrorReason::TooLarge, message, [("bytes", &bytes), ("limit", &limit)], |_| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortened_task_keeps_all_fields_that_fit() {
        let step = v1::Step { node: "x".repeat(DEFAULT_RESPONSE_BYTES), ..v1::Step::default() };
        let input = "a question".to_owned();
        let task = v1::Task { id: "id".to_owned(), input, steps: vec![step], ..v1::Task::default() };
        let refused = within_limit(task.clone(), DEFAULT_RESPONSE_BYTES).unwrap_err();
        assert!(refused.message().contains("`read_mask`"), "{refused}");
        let cut = shortened(task);
        assert_eq!((cut.id.as_str(), cut.input.as_str(), cut.steps.len()), ("id", "a question", 0));
        assert!(within_limit(cut.clone(), DEFAULT_RESPONSE_BYTES).is_ok_and(|same| same == cut));
    }

    #[test]
    fn the_error_for_an_event_that_is_too_large_says_how_to_continue() {
        let event_of = |bytes: usize| {
            let cancelled = v1::Cancelled { reason: "x".repeat(bytes), partial: Vec::new() };
            v1::Event { seq: 7, kind: Some(v1::event::Kind::Cancelled(cancelled)), ..v1::Event::default() }
        };
        let fits = event_of(DEFAULT_RESPONSE_BYTES - 100);
        assert!(event(fits.clone()).is_ok_and(|same| same == fits));
        let refused = event(event_of(DEFAULT_RESPONSE_BYTES)).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("event 7 has") && refused.message().contains("`after_seq` 7"), "{refused}");
    }
}

//! How large messages may be, and what is said of those that are larger.

use artel_proto::v1::{self, ErrorReason};
use prost::Message as _;
use tonic::body::Body;
use tonic::codegen::http::Response;
use tonic::{Code, Status};

use super::status::{bad, with};

/// The largest request: a catalog of many files; a task's input has 1 MiB at most.
pub(super) const MAX_REQUEST: usize = 4 * 1024 * 1024;
/// The largest message that clients take unless they are told otherwise, in every language that has gRPC.
const USUAL: usize = 4 * 1024 * 1024;
/// The largest answer, whatever a client takes: all of a task of some thousand steps.
const MOST: usize = 64 * 1024 * 1024;

/// How tonic begins to say that a request is too large, before it gives both figures.
const TOO_LARGE: &str = "Error, decoded message length too large: found ";

/// The largest answer that a client takes.
pub(super) fn limit(asked: u64) -> Result<usize, Status> {
    match usize::try_from(asked) {
        Ok(0) => Ok(USUAL),
        Ok(asked) if asked <= MOST => Ok(asked),
        _ => Err(bad("max_bytes", format!("the limit is {MOST}"))),
    }
}

/// A task, unless it is larger than the client takes.
pub(super) fn whole(task: v1::Task, limit: usize) -> Result<v1::Task, Status> {
    let bytes = task.encoded_len();
    if bytes <= limit {
        return Ok(task);
    }
    let message = format!(
        "task {} has {bytes} bytes, and the answer may have {limit}: leave out `steps`, and `result` or `input` if need be, \
         with `read_mask`; or watch the task, which gives each step by itself; or take more, and say so in `max_bytes`",
        task.id
    );
    Err(too_large(Code::ResourceExhausted, bytes, limit, message))
}

/// A task without what makes it larger than clients take, for answers to what is done already.
pub(super) fn cut(mut task: v1::Task) -> v1::Task {
    let parts: [fn(&mut v1::Task); 3] =
        [|task| task.steps.clear(), |task| task.result = None, |task| task.input.clear()];
    for leave_out in parts {
        if task.encoded_len() <= USUAL {
            break;
        }
        leave_out(&mut task);
    }
    task
}

/// An event, unless it is larger than clients take, which those of journals of earlier versions may be.
pub(super) fn event(event: v1::Event) -> Result<v1::Event, Status> {
    let bytes = event.encoded_len();
    if bytes <= USUAL {
        return Ok(event);
    }
    let message = format!(
        "event {seq} has {bytes} bytes, and a message has {USUAL} at most: watch on with `after_seq` {seq}",
        seq = event.seq
    );
    Err(too_large(Code::ResourceExhausted, bytes, USUAL, message))
}

/// Says more where a request was too large to be read.
pub(super) fn explained(response: Response<Body>) -> Response<Body> {
    let Some(bytes) = refused(&response) else { return response };
    let message = format!(
        "the request has {bytes} bytes, the limit is {MAX_REQUEST} (4 MiB): the text of a task or of an answer has 1 MiB at \
         most, and a larger catalog is read from files by `artel serve --catalog`"
    );
    too_large(Code::InvalidArgument, bytes, MAX_REQUEST, message).into_http()
}

/// The bytes of a request that was too large to be read.
fn refused(response: &Response<Body>) -> Option<usize> {
    let status = Status::from_header_map(response.headers()).filter(|status| status.code() == Code::OutOfRange)?;
    status.message().strip_prefix(TOO_LARGE)?.split(' ').next()?.parse().ok()
}

fn too_large(code: Code, bytes: usize, limit: usize, message: String) -> Status {
    let (bytes, limit) = (bytes.to_string(), limit.to_string());
    with(code, ErrorReason::TooLarge, message, [("bytes", &bytes), ("limit", &limit)], |_| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_already_is_told_with_all_that_fits() {
        let step = v1::Step { node: "x".repeat(USUAL), ..v1::Step::default() };
        let input = "a question".to_owned();
        let task = v1::Task { id: "id".to_owned(), input, steps: vec![step], ..v1::Task::default() };
        let refused = whole(task.clone(), USUAL).unwrap_err();
        assert!(refused.message().contains("`read_mask`"), "{refused}");
        let cut = cut(task);
        assert_eq!((cut.id.as_str(), cut.input.as_str(), cut.steps.len()), ("id", "a question", 0));
        assert!(whole(cut.clone(), USUAL).is_ok_and(|whole| whole == cut));
    }

    #[test]
    fn whoever_watches_an_event_that_is_too_large_is_told_how_to_go_on() {
        let of = |bytes: usize| {
            let cancelled = v1::Cancelled { reason: "x".repeat(bytes) };
            v1::Event { seq: 7, kind: Some(v1::event::Kind::Cancelled(cancelled)), ..v1::Event::default() }
        };
        let fits = of(USUAL - 100);
        assert!(event(fits.clone()).is_ok_and(|same| same == fits));
        let refused = event(of(USUAL)).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("event 7 has") && refused.message().contains("`after_seq` 7"), "{refused}");
    }
}

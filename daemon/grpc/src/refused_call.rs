//! A refused call, as gRPC and as HTTP tell it.

use std::time::Duration;

use artel_access::AccessRefusal;
use artel_proto::v1::ErrorReason;
use serde_json::json;
use tonic::body::Body;
use tonic::codegen::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use tonic::codegen::http::{HeaderMap, HeaderValue, Response, StatusCode};
use tonic::{Code, Status};

use crate::status::{self, caller_limit, status, status_with_details};

/// A caller with too many streams ends one of its own first, which takes it some time.
const STREAM_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Whether a request is a gRPC call, of whichever encoding.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The refusal as a response; the name of its caller, if there is one, is in the extensions.
pub(crate) fn response(refusal: &AccessRefusal, is_grpc: bool) -> Response<Body> {
    let mut response = if is_grpc { grpc_status(refusal).into_http() } else { http(refusal) };
    if let Some(caller) = refusal.caller() {
        response.extensions_mut().insert(caller.clone());
    }
    response
}

/// Its reason in the contract's words.
pub(crate) fn reason_text(refusal: &AccessRefusal) -> &'static str {
    status::reason_text(reason(refusal))
}

fn reason(refusal: &AccessRefusal) -> ErrorReason {
    use AccessRefusal as R;
    match refusal {
        R::NoToken
        | R::InvalidHeader
        | R::UnknownToken
        | R::ExpiredToken(_)
        | R::ForeignUser(_)
        | R::UnknownCertificate => ErrorReason::Unauthenticated,
        R::MissingScope { .. } => ErrorReason::MissingScope,
        R::TooManyCalls { .. } | R::TooManyStreams { .. } => ErrorReason::CallerLimit,
        R::UnknownRoute => ErrorReason::NotImplemented,
    }
}

/// The refusal as a gRPC status.
pub(crate) fn grpc_status(refusal: &AccessRefusal) -> Status {
    use AccessRefusal as R;
    let (reason, message) = (reason(refusal), refusal.to_string());
    match refusal {
        R::MissingScope { caller, scope } => {
            let metadata = [("caller", caller.as_str()), ("scope", scope.as_str())];
            status_with_details(Code::PermissionDenied, reason, message, metadata, |_| {})
        }
        R::TooManyCalls { caller, delay, .. } => caller_limit(message, caller, "calls_per_minute", *delay),
        R::TooManyStreams { caller, .. } => caller_limit(message, caller, "streams", STREAM_RETRY_DELAY),
        R::UnknownRoute => status(Code::Unimplemented, reason, message),
        _ => status(Code::Unauthenticated, reason, message),
    }
}

/// The type and the code of a refusal for a limit.
const LIMIT: (&str, &str) = ("rate_limit_error", "rate_limit_exceeded");

/// A refusal as an event of a stream over plain HTTP.
pub(crate) fn stream_event(refusal: &AccessRefusal) -> String {
    format!("data: {}\n\n", error_text("authentication_error", "invalid_api_key", &refusal.to_string()))
}

/// An error in the shape that clients of OpenAI's API read.
fn error_text(kind: &str, code: &str, message: &str) -> String {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}}).to_string()
}

/// A page of JSON, as every error over plain HTTP is one.
fn http(refusal: &AccessRefusal) -> Response<Body> {
    use AccessRefusal as R;
    let retry_after = |delay: Duration| Some((RETRY_AFTER, HeaderValue::from(delay.as_secs_f64().ceil() as u64)));
    let (status, (kind, code), header) = match refusal {
        R::MissingScope { .. } => (StatusCode::FORBIDDEN, ("permission_error", "insufficient_permissions"), None),
        R::TooManyCalls { delay, .. } => (StatusCode::TOO_MANY_REQUESTS, LIMIT, retry_after(*delay)),
        R::TooManyStreams { .. } => (StatusCode::TOO_MANY_REQUESTS, LIMIT, retry_after(STREAM_RETRY_DELAY)),
        R::UnknownRoute => (StatusCode::NOT_FOUND, ("invalid_request_error", "not_found"), None),
        R::NoToken
        | R::InvalidHeader
        | R::UnknownToken
        | R::ExpiredToken(_)
        | R::ForeignUser(_)
        | R::UnknownCertificate => {
            let challenge = HeaderValue::from_static("Bearer realm=\"artel\"");
            let kind = ("authentication_error", "invalid_api_key");
            (StatusCode::UNAUTHORIZED, kind, Some((WWW_AUTHENTICATE, challenge)))
        }
    };
    let message = match refusal {
        R::UnknownRoute => "there is no such page, or it does not take this method".to_owned(),
        _ => refusal.to_string(),
    };
    let text = error_text(kind, code, &message);
    let mut response = Response::new(Body::new(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().extend(header);
    response
}

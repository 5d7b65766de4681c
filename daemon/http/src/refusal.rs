//! Why a request is refused at the edge, in the form that its client reads.

use std::collections::HashMap;
use std::time::Duration;

use artel_proto::v1::ErrorReason;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of the reasons of gRPC errors.
const ERROR_DOMAIN: &str = "artel.v1";
/// What every content type of gRPC and gRPC-Web begins with.
const GRPC_PREFIX: &str = "application/grpc";
/// What those of gRPC-Web begin with.
const GRPC_WEB_PREFIX: &str = "application/grpc-web";
/// When a client may try again that was refused because of others.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// As much of a name from a client is repeated to it.
const MAX_SHOWN_CHARS: usize = 100;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "the request is for the host `{0}`, by which this daemon is not known; if it is one of its names, add it to \
         `http: {{hosts: [...]}}` in the settings"
    )]
    UnknownHost(String),
    #[error("the request names no host")]
    NoHost,
    #[error(
        "the request comes from a page of `{0}`; if that page may call this daemon, add its origin to \
         `http: {{origins: [...]}}` in the settings"
    )]
    ForeignOrigin(String),
    #[error("the headers have {bytes} bytes, the limit is {limit}")]
    HeadersTooLarge { bytes: usize, limit: usize },
    #[error("the body has more than {limit} bytes, which is the limit")]
    BodyTooLarge { limit: usize },
    #[error("the body was not sent within {} s", .0.as_secs())]
    BodyTimeout(Duration),
    #[error("the body was cut off")]
    BodyCutOff,
    #[error(
        "{limit} requests are being answered, which is the limit: try again later, or raise `http: {{requests: N}}`"
    )]
    TooManyRequests { limit: usize },
    #[error("{limit} streams watch the health of this daemon, which is the limit: try again later")]
    TooManyHealthStreams { limit: usize },
    #[error("gRPC needs HTTP/2; over HTTP/1.1, use gRPC-Web")]
    GrpcOverHttp1,
    #[error("gRPC-Web is called by POST, not by {0}")]
    NotPosted(Method),
    #[error("nothing is at `{0}`")]
    NotFound(String),
    #[error("`{path}` is not for {method}")]
    MethodNotAllowed { path: String, method: Method },
    #[error("the daemon takes no work: {0}")]
    NotReady(String),
}

/// What a client speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// gRPC over HTTP/2.
    Grpc,
    /// gRPC-Web, with its content type.
    GrpcWeb(HeaderValue),
    /// Anything else.
    Plain,
}

impl Dialect {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let Some(content) = headers.get(CONTENT_TYPE) else { return Self::Plain };
        match content.to_str() {
            Ok(text) if text.starts_with(GRPC_WEB_PREFIX) => Self::GrpcWeb(content.clone()),
            Ok(text) if text.starts_with(GRPC_PREFIX) => Self::Grpc,
            _ => Self::Plain,
        }
    }
}

impl Refusal {
    /// The status of HTTP, a word for programs, and that of gRPC with its reason.
    fn codes(&self) -> (StatusCode, &'static str, Code, ErrorReason) {
        use ErrorReason as R;
        match self {
            Self::UnknownHost(_) | Self::NoHost => {
                (StatusCode::MISDIRECTED_REQUEST, "host_refused", Code::PermissionDenied, R::HostRefused)
            }
            Self::ForeignOrigin(_) => {
                (StatusCode::FORBIDDEN, "origin_refused", Code::PermissionDenied, R::OriginRefused)
            }
            Self::HeadersTooLarge { .. } => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", Code::ResourceExhausted, R::TooLarge)
            }
            Self::BodyTooLarge { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", Code::ResourceExhausted, R::TooLarge)
            }
            Self::BodyTimeout(_) => {
                (StatusCode::REQUEST_TIMEOUT, "body_timeout", Code::DeadlineExceeded, R::BadRequest)
            }
            Self::BodyCutOff => (StatusCode::BAD_REQUEST, "body_cut_off", Code::InvalidArgument, R::BadRequest),
            Self::TooManyRequests { .. } | Self::TooManyHealthStreams { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "too_many_requests", Code::ResourceExhausted, R::TooManyRequests)
            }
            Self::GrpcOverHttp1 => {
                (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "grpc_needs_http2", Code::InvalidArgument, R::BadRequest)
            }
            Self::NotPosted(_) | Self::MethodNotAllowed { .. } => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", Code::InvalidArgument, R::BadRequest)
            }
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "not_found", Code::Unimplemented, R::NotImplemented),
            Self::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready", Code::Unavailable, R::ShuttingDown),
        }
    }

    /// The reason in the words of the contract.
    pub(crate) fn reason(&self) -> &'static str {
        let (.., reason) = self.codes();
        reason.as_str_name().trim_start_matches("ERROR_REASON_")
    }

    /// Whether the same request may be answered later.
    fn is_transient(&self) -> bool {
        matches!(self, Self::TooManyRequests { .. } | Self::TooManyHealthStreams { .. } | Self::NotReady(_))
    }

    /// The response for a client.
    pub(crate) fn to_response(&self, dialect: &Dialect) -> Response<Body> {
        match dialect {
            Dialect::Grpc => self.to_status().into_http(),
            Dialect::GrpcWeb(content) => {
                let mut response = self.to_status().into_http::<Body>();
                // The status is in the headers, where clients of gRPC-Web look for it as well.
                response.headers_mut().insert(CONTENT_TYPE, content.clone());
                response
            }
            Dialect::Plain => self.to_page(),
        }
    }

    /// The response for a client that does not speak gRPC.
    pub(crate) fn to_page(&self) -> Response<Body> {
        let (status, code, ..) = self.codes();
        let mut response = error_page(status, code, &self.to_string());
        if self.is_transient() {
            response.headers_mut().insert(RETRY_AFTER, RETRY_DELAY.as_secs().into());
        }
        response
    }

    fn metadata(&self) -> HashMap<String, String> {
        match self {
            Self::HeadersTooLarge { bytes, limit } => {
                [("bytes", bytes), ("limit", limit)].map(|(key, value)| (key.to_owned(), value.to_string())).into()
            }
            _ => HashMap::new(),
        }
    }

    fn to_status(&self) -> Status {
        let (.., code, _) = self.codes();
        let mut details = ErrorDetails::with_error_info(self.reason(), ERROR_DOMAIN, self.metadata());
        if self.is_transient() {
            details.set_retry_info(Some(RETRY_DELAY));
        }
        Status::with_error_details(code, self.to_string(), details)
    }
}

/// A name that a client sent, as it may stand in a message and in the log.
pub(crate) fn shown(name: &str) -> String {
    let visible = |c: char| if c.is_control() || c == '`' { '\u{fffd}' } else { c };
    name.chars().take(MAX_SHOWN_CHARS).map(visible).collect()
}

/// An error as a page of JSON, in the shape that clients of OpenAI's API read.
fn error_page(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let kind = match status.as_u16() {
        429 | 503 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    let error = serde_json::json!({"message": message, "type": kind, "param": null, "code": code});
    let text = serde_json::json!({"error": error}).to_string();
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_tells_what_a_client_speaks() {
        let dialect = |content: &'static str| {
            Dialect::of(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content))]))
        };
        assert_eq!(dialect("application/grpc+proto"), Dialect::Grpc);
        assert_eq!(
            dialect("application/grpc-web+proto"),
            Dialect::GrpcWeb("application/grpc-web+proto".try_into().unwrap())
        );
        assert_eq!((dialect("application/json"), Dialect::of(&HeaderMap::new())), (Dialect::Plain, Dialect::Plain));
    }

    #[test]
    fn a_client_of_grpc_reads_a_status_and_others_read_json() {
        let refusal = Refusal::TooManyRequests { limit: 3 };
        let grpc = refusal.to_response(&Dialect::Grpc);
        let status = Status::from_header_map(grpc.headers()).unwrap();
        assert_eq!((grpc.status(), status.code()), (StatusCode::OK, Code::ResourceExhausted));
        assert_eq!(status.get_details_error_info().unwrap().reason, "TOO_MANY_REQUESTS");
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(RETRY_DELAY));
        let plain = refusal.to_response(&Dialect::Plain);
        assert_eq!(
            (plain.status(), &plain.headers()[RETRY_AFTER]),
            (StatusCode::SERVICE_UNAVAILABLE, &"2".parse().unwrap())
        );
    }

    #[test]
    fn a_name_from_a_client_is_shown_short_and_without_control_characters() {
        assert_eq!(shown("a\r\n`b"), "a\u{fffd}\u{fffd}\u{fffd}b");
        assert_eq!(shown(&"x".repeat(500)).len(), MAX_SHOWN_CHARS);
    }
}

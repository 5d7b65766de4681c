//! An error as clients of OpenAI read it: a status of HTTP, and `{"error": {"message", "type", "param", "code"}}`.

use std::fmt::Display;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};

/// The header that names the task of an answer or of an error.
pub(crate) const TASK_HEADER: HeaderName = HeaderName::from_static("x-artel-task");
/// The header that keeps the clients of OpenAI from trying again what cannot succeed; they try 409 again without it.
const SHOULD_RETRY_HEADER: HeaderName = HeaderName::from_static("x-should-retry");

/// `type` of an error in the request.
pub(crate) const INVALID_REQUEST: &str = "invalid_request_error";
/// `type` of an error of the daemon or of a model.
pub(crate) const SERVER_ERROR: &str = "server_error";

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// OpenAI's `type`.
    pub(crate) kind: &'static str,
    pub(crate) code: Option<&'static str>,
    /// The field that is at fault.
    pub(crate) param: Option<String>,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
    /// The task that failed, or whose key is used.
    pub(crate) task: Option<Box<str>>,
}

impl ApiError {
    /// An error of this status; the rest is added by the methods below.
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code: None, param: None, message: message.into(), retry_after: None, task: None }
    }

    /// A fault of a field. `what` follows its name, as in "`n` is 9, and must be from 1 to 8".
    pub(crate) fn invalid(param: impl Into<String>, what: impl Display) -> Self {
        let param = param.into();
        let message = format!("`{param}` {what}");
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, message).with_param(param).with_code("invalid_value")
    }

    /// A field that this daemon does not take. `why` follows its name and says what to do instead.
    pub(crate) fn unsupported(param: impl Into<String>, why: impl Display) -> Self {
        Self::invalid(param, why).with_code("unsupported_parameter")
    }

    /// A model that is not served.
    pub(crate) fn no_model(id: &str) -> Self {
        let shown: String = id.chars().take(MAX_SHOWN_CHARS).collect();
        let message = format!("the model `{shown}` does not exist: `GET /v1/models` lists those that do");
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, message).with_param("model").with_code("model_not_found")
    }

    pub(crate) fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    pub(crate) fn with_param(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    pub(crate) fn with_task(self, task: impl Into<Box<str>>) -> Self {
        Self { task: Some(task.into()), ..self }
    }

    pub(crate) fn with_retry_after(self, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..self }
    }

    /// `{"error": {…}}`, as the body of a response and as an event of a stream.
    pub(crate) fn to_json(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}

/// As much of a name from a client is repeated to it.
const MAX_SHOWN_CHARS: usize = 100;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(delay) = self.retry_after {
            // Whole seconds, rounded up: a client that comes too early is refused again.
            headers.insert(RETRY_AFTER, delay.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX).into());
        }
        if self.status == StatusCode::CONFLICT {
            headers.insert(SHOULD_RETRY_HEADER, HeaderValue::from_static("false"));
        }
        if let Some(task) = self.task.as_deref().and_then(|task| HeaderValue::from_str(task).ok()) {
            headers.insert(TASK_HEADER, task);
        }
        response
    }
}

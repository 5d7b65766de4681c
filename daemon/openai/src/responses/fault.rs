//! Errors in the names of this endpoint.

use crate::api_error::ApiError;

/// An error whose field has the name that it has in the request of a response.
pub(super) fn renamed(error: ApiError) -> ApiError {
    match error.param.as_deref() {
        Some("messages") => error.with_param("input"),
        _ => error,
    }
}

/// The code of an error: clients require one.
pub(super) fn code_of(error: &ApiError) -> &'static str {
    error.code.unwrap_or(error.kind)
}

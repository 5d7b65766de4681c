//! A call of a route: its body, read and parsed, and what the layers before the routes found out of its client.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{Extensions, HeaderMap, StatusCode};
use serde_json::{Map, Value};

use crate::api_error::{ApiError, INVALID_REQUEST};
use crate::fields::Fields;

/// A call.
#[derive(Debug)]
pub(crate) struct Call {
    body: Map<String, Value>,
    pub(crate) headers: HeaderMap,
    /// The caller and its trace, which the services look for.
    extensions: Extensions,
}

impl Call {
    /// Reads a request. Its objects and lists nest 128 levels deep at most, a limit of `serde_json`.
    pub(crate) async fn read(request: Request) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let invalid =
            |what: String| ApiError::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, what).with_code("invalid_json");
        // A layer around the routes has read and limited it.
        let bytes = to_bytes(body, usize::MAX).await.map_err(|_| invalid("the body is cut off".to_owned()))?;
        match serde_json::from_slice::<Value>(&bytes) {
            Ok(Value::Object(body)) => Ok(Self { body, headers: parts.headers, extensions: parts.extensions }),
            Ok(_) => Err(invalid("the body must be a JSON object".to_owned())),
            Err(error) => Err(invalid(format!("the body is no JSON: {error}"))),
        }
    }

    /// The fields of the request.
    pub(crate) fn fields(&self) -> Fields<'_> {
        Fields::root(&self.body)
    }

    /// The same caller's call of a service.
    pub(crate) fn to_service<T>(&self, message: T) -> tonic::Request<T> {
        request_of(&self.extensions, message)
    }

    /// What the layers before the routes found out of the client.
    pub(crate) fn extensions(&self) -> &Extensions {
        &self.extensions
    }
}

/// A call of a service by the caller that these extensions name.
pub(crate) fn request_of<T>(extensions: &Extensions, message: T) -> tonic::Request<T> {
    tonic::Request::from_parts(tonic::metadata::MetadataMap::new(), extensions.clone(), message)
}

//! Which calls are let in.

use tonic::service::Interceptor;
use tonic::{Request, Status};

/// Compares the header `api-key` with the key of the server.
#[derive(Debug, Clone)]
pub(crate) struct KeyCheck {
    key: Option<String>,
}

impl KeyCheck {
    pub(crate) fn new(key: Option<String>) -> Self {
        Self { key }
    }
}

impl Interceptor for KeyCheck {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(key) = &self.key else { return Ok(request) };
        match request.metadata().get("api-key") {
            None => Err(Status::unauthenticated("Must provide an API key or an Authorization bearer token")),
            Some(given) if given.as_bytes() == key.as_bytes() => Ok(request),
            // Quoted, to see that clients do not show what a server quotes.
            Some(given) => {
                Err(Status::unauthenticated(format!("Invalid API key {}", given.to_str().unwrap_or_default())))
            }
        }
    }
}

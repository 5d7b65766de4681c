//! Connections of callers.

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// A connection whose calls have a token.
pub type CallerChannel = InterceptedService<Channel, TokenHeader>;

/// Adds a token to each call.
#[derive(Clone)]
pub struct TokenHeader(MetadataValue<Ascii>);

impl TokenHeader {
    /// The header with this token.
    pub fn new(token: &str) -> Self {
        Self(format!("Bearer {token}").parse().unwrap())
    }
}

impl Interceptor for TokenHeader {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

//! The connection to the daemon.

use std::time::Duration;

use artel_args::DaemonAddress;
use artel_proto::v1::access_client::AccessClient;
use artel_proto::v1::admin_client::AdminClient;
use artel_proto::v1::catalog_client::CatalogClient;
use artel_proto::v1::engines_client::EnginesClient;
use artel_proto::v1::router_client::RouterClient;
use artel_proto::v1::tasks_client::TasksClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use crate::error::Error;
use crate::location::DaemonLocation;

/// The largest message of the daemon, decoded: fits a long task with all its steps.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// The daemon must accept a connection within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The daemon must answer a request that needs no model within this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The interval of HTTP/2 pings, and the time to wait for their answer.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A connection to a daemon, with a client for each gRPC service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DaemonClient(DaemonChannel);

/// A connection whose calls carry the token.
pub type DaemonChannel = InterceptedService<Channel, BearerToken>;

/// Adds the token to each call.
#[derive(Clone)]
pub struct BearerToken(Option<MetadataValue<Ascii>>);

impl Interceptor for BearerToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl BearerToken {
    fn of(location: &DaemonLocation) -> Result<Self, Error> {
        let Some(token) = location.token() else { return Ok(Self(None)) };
        let value = MetadataValue::try_from(format!("Bearer {}", token.expose()));
        let mut value = value.map_err(|_| Error::Usage(format!("{} is not a token", location.token_origin())))?;
        // Neither shown nor kept in the compression of headers.
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl DaemonClient {
    /// Connects.
    ///
    /// # Errors
    /// [`Error::NoDaemon`] if the daemon does not accept the connection, [`Error::Usage`] if the token or the certificates are
    /// not usable.
    pub async fn connect(location: &DaemonLocation) -> Result<Self, Error> {
        let address = location.address();
        let no_daemon = |cause: tonic::transport::Error| Error::no_daemon(address, &cause);
        let token = BearerToken::of(location)?;
        let mut endpoint = Endpoint::from_shared(address.to_string()).map_err(no_daemon)?;
        if matches!(address, DaemonAddress::Tcp { is_encrypted: true, .. }) {
            endpoint = endpoint.tls_config(tls(location)?).map_err(no_daemon)?;
        }
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_INTERVAL)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(no_daemon)?;
        Ok(Self(InterceptedService::new(channel, token)))
    }

    /// The client of the service `Tasks`.
    pub fn tasks(&self) -> TasksClient<DaemonChannel> {
        TasksClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The client of the service `Catalog`.
    pub fn catalog(&self) -> CatalogClient<DaemonChannel> {
        CatalogClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The client of the service `Router`.
    pub fn router(&self) -> RouterClient<DaemonChannel> {
        RouterClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The client of the service `Admin`.
    pub fn admin(&self) -> AdminClient<DaemonChannel> {
        AdminClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The client of the service `Engines`.
    pub fn engines(&self) -> EnginesClient<DaemonChannel> {
        EnginesClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The client of the service `Access`.
    pub fn access(&self) -> AccessClient<DaemonChannel> {
        AccessClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}

/// Trusts the certificates of the flags, or else those of the system.
fn tls(location: &DaemonLocation) -> Result<ClientTlsConfig, Error> {
    let Some(path) = location.ca() else { return Ok(ClientTlsConfig::new().with_native_roots()) };
    let unreadable = |error| Error::Usage(format!("failed to read the certificates in {}: {error}", path.display()));
    let pem = std::fs::read(path).map_err(unreadable)?;
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
}

/// A request with a deadline. Streams, and requests that wait for a model, have none.
pub(crate) fn with_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER_TIMEOUT);
    request
}

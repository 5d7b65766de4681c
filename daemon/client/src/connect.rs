//! The connection to the daemon.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use artel_access::PublishedAddress;
use artel_proto::v1::access_client::AccessClient;
use artel_proto::v1::admin_client::AdminClient;
use artel_proto::v1::catalog_client::CatalogClient;
use artel_proto::v1::engines_client::EnginesClient;
use artel_proto::v1::knowledge_client::KnowledgeClient;
use artel_proto::v1::models_client::ModelsClient;
use artel_proto::v1::router_client::RouterClient;
use artel_proto::v1::tasks_client::TasksClient;
use artel_proto::v1::training_client::TrainingClient;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};
use tonic::{Request, Status};
use tower::{Service, service_fn};

use crate::error::{Error, root_cause};
use crate::location::{ClientIdentity, DaemonLocation};

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
        if address.is_encrypted() {
            endpoint = with_tls(endpoint, location)?;
        }
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_INTERVAL)
            .keep_alive_while_idle(true);
        let channel = match location.proven_by() {
            Some(data) => endpoint.connect_with_connector(proven(data)).await,
            None => endpoint.connect().await,
        };
        let channel = channel.map_err(no_daemon)?;
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

    /// The client of the service `Models`.
    pub fn models(&self) -> ModelsClient<DaemonChannel> {
        ModelsClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The client of the service `Knowledge`.
    pub fn knowledge(&self) -> KnowledgeClient<DaemonChannel> {
        KnowledgeClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The client of the service `Training`.
    pub fn training(&self) -> TrainingClient<DaemonChannel> {
        TrainingClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
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

/// Trusts the certificates of the flags, or else those of the system, and shows the client certificate of the flags.
fn with_tls(endpoint: Endpoint, location: &DaemonLocation) -> Result<Endpoint, Error> {
    let mut tls = match location.ca() {
        Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read_pem(path)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let Some(ClientIdentity { certificate, key }) = location.identity() {
        tls = tls.identity(Identity::from_pem(read_pem(certificate)?, read_pem(key)?));
    }
    let unusable = |error: tonic::transport::Error| {
        let files = [location.ca(), location.identity().map(|own| own.certificate.as_path())];
        let files: Vec<_> = files.into_iter().flatten().map(|path| path.display().to_string()).collect();
        let files = if files.is_empty() { "of the system".to_owned() } else { format!("in {}", files.join(" and ")) };
        Error::Usage(format!("the certificates {files} cannot be used: {}", root_cause(&error)))
    };
    endpoint.tls_config(tls).map_err(unusable)
}

fn read_pem(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::Usage(format!("failed to read {}: {error}", path.display())))
}

/// Connects to the daemon of a data directory and to no other process: each connection is checked before anything is sent, so also
/// those that are made again after the daemon has ended.
fn proven(
    data: &Path,
) -> impl Service<Uri, Response = TokioIo<TcpStream>, Error = io::Error, Future: Send> + Send + use<> {
    let data: Arc<Path> = data.into();
    service_fn(move |uri: Uri| {
        let data = data.clone();
        async move {
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            let stream = TcpStream::connect((host, uri.port_u16().unwrap_or_default())).await?;
            stream.set_nodelay(true)?;
            let reached = stream.peer_addr()?;
            // After it was made: what listens there has listened since, as long as it holds the file.
            match PublishedAddress::of(&data) {
                Some(published) if PublishedAddress::is_reached_at(published, reached) => Ok(TokioIo::new(stream)),
                _ => Err(io::Error::other(format!(
                    "what listens at {reached} is not the daemon of {}, and its owner's token was not sent",
                    data.display()
                ))),
            }
        }
    })
}

/// A request with a deadline. Streams, and requests that wait for a model, have none.
pub(crate) fn with_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER_TIMEOUT);
    request
}

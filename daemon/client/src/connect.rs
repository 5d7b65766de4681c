//! The connection to the daemon.

use std::time::Duration;

use artel_args::DaemonAddress;
use artel_proto::v1::catalog_client::CatalogClient;
use artel_proto::v1::engines_client::EnginesClient;
use artel_proto::v1::router_client::RouterClient;
use artel_proto::v1::tasks_client::TasksClient;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::error::Error;

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
pub struct DaemonClient(Channel);

impl DaemonClient {
    /// Connects.
    ///
    /// # Errors
    /// [`Error::NoDaemon`] if the daemon does not accept the connection.
    pub async fn connect(address: &DaemonAddress) -> Result<Self, Error> {
        let no_daemon = |cause: tonic::transport::Error| Error::no_daemon(address, &cause);
        let endpoint = Endpoint::from_shared(address.to_string()).map_err(no_daemon)?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_INTERVAL)
            .keep_alive_while_idle(true);
        endpoint.connect().await.map(Self).map_err(no_daemon)
    }

    /// The client of the service `Tasks`.
    pub fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The client of the service `Catalog`.
    pub fn catalog(&self) -> CatalogClient<Channel> {
        CatalogClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The client of the service `Router`.
    pub fn router(&self) -> RouterClient<Channel> {
        RouterClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The client of the service `Engines`.
    pub fn engines(&self) -> EnginesClient<Channel> {
        EnginesClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}

/// A request with a deadline. Streams, and requests that wait for a model, have none.
pub(crate) fn with_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER_TIMEOUT);
    request
}

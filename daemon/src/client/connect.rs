//! The connection to the daemon.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use artel_proto::v1::catalog_client::CatalogClient;
use artel_proto::v1::engines_client::EnginesClient;
use artel_proto::v1::router_client::RouterClient;
use artel_proto::v1::tasks_client::TasksClient;
use tonic::Request;
use tonic::transport::{Channel, Endpoint, Uri};

use super::error::Error;

/// The largest message of the daemon, decoded: fits a long task with all its steps.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// The daemon must accept a connection within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The daemon must answer a request that needs no model within this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The interval of HTTP/2 pings, and the time to wait for their answer.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// The port of an address without one.
const DEFAULT_PORT: u16 = 7430;

/// The address of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DaemonAddress {
    host: String,
    port: u16,
}

impl FromStr for DaemonAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("https://") {
            return Err("the daemon does not support TLS: use http://".to_owned());
        }
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = whole.parse().map_err(|e| format!("not a HOST:PORT: {e}"))?;
        match (uri.scheme_str(), uri.host(), uri.path_and_query().map_or("/", |path| path.as_str())) {
            (Some("http"), Some(host), "/") if !host.is_empty() && !whole.contains('@') => {
                // `Uri` parses an invalid port as none.
                let bare = uri.authority().is_some_and(|authority| authority.as_str() == host);
                let port = uri.port_u16().or(bare.then_some(DEFAULT_PORT));
                Ok(Self { host: host.to_owned(), port: port.ok_or("the port is not a number up to 65535")? })
            }
            _ => Err("use the form HOST:PORT or http://HOST:PORT".to_owned()),
        }
    }
}

impl fmt::Display for DaemonAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

/// A connection to a daemon, with a client for each gRPC service. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct DaemonClient(Channel);

impl DaemonClient {
    /// Connects.
    ///
    /// # Errors
    /// [`Error::NoDaemon`] if the daemon does not accept the connection.
    pub(crate) async fn connect(address: &DaemonAddress) -> Result<Self, Error> {
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
    pub(crate) fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The client of the service `Catalog`.
    pub(crate) fn catalog(&self) -> CatalogClient<Channel> {
        CatalogClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The client of the service `Router`.
    pub(crate) fn router(&self) -> RouterClient<Channel> {
        RouterClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The client of the service `Engines`.
    pub(crate) fn engines(&self) -> EnginesClient<Channel> {
        EnginesClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}

/// A request with a deadline. Streams, and requests that wait for a model, have none.
pub(crate) fn with_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER_TIMEOUT);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        text.parse::<DaemonAddress>().map_or_else(|e| format!("error: {e}"), |address| address.to_string())
    }

    #[test]
    fn an_address_may_leave_out_scheme_and_port() {
        assert_eq!(parsed("http://127.0.0.1:7430"), "http://127.0.0.1:7430");
        assert_eq!(parsed("http://127.0.0.1:80/"), "http://127.0.0.1:80");
        assert_eq!(parsed("localhost:1234"), "http://localhost:1234");
        assert_eq!(parsed("localhost"), "http://localhost:7430");
        assert_eq!(parsed("[::1]:99"), "http://[::1]:99");
        assert_eq!(parsed("[::1]"), "http://[::1]:7430");
    }

    #[test]
    fn invalid_addresses_are_rejected() {
        for text in ["", "https://localhost", "http://", "localhost:x", "localhost:99999", "a b", "h:1/path", "u@h:1"] {
            assert!(parsed(text).starts_with("error: "), "{text:?} is taken as {}", parsed(text));
        }
    }
}

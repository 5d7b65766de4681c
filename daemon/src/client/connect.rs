//! The way to the daemon.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use artel_proto::v1::catalog_client::CatalogClient;
use artel_proto::v1::fleet_client::FleetClient;
use artel_proto::v1::router_client::RouterClient;
use artel_proto::v1::tasks_client::TasksClient;
use tonic::Request;
use tonic::transport::{Channel, Endpoint, Uri};

use super::error::Error;

/// The largest message of the daemon, in bytes, decoded: a long task with all its steps fits.
pub(crate) const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// How long a daemon may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a daemon may take to answer what it can answer at once.
const ANSWER: Duration = Duration::from_secs(30);
/// How often to ask whether the other side is still there, and how long to wait for its answer.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The port of an address without one.
const PORT: u16 = 7430;

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    host: String,
    port: u16,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("https://") {
            return Err("the daemon does not speak TLS: write http://".to_owned());
        }
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = whole.parse().map_err(|e| format!("it is no HOST:PORT: {e}"))?;
        match (uri.scheme_str(), uri.host(), uri.path_and_query().map_or("/", |path| path.as_str())) {
            (Some("http"), Some(host), "/") if !host.is_empty() && !whole.contains('@') => {
                // A port that is no number parses as none.
                let bare = uri.authority().is_some_and(|authority| authority.as_str() == host);
                let port = uri.port_u16().or(bare.then_some(PORT));
                Ok(Self { host: host.to_owned(), port: port.ok_or("the port is no number up to 65535")? })
            }
            _ => Err("write HOST:PORT or http://HOST:PORT".to_owned()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

/// A connection; each service is spoken to through its own client, all over this one.
#[derive(Debug, Clone)]
pub(crate) struct Daemon(Channel);

impl Daemon {
    /// Connects, or says that there is no daemon.
    pub(crate) async fn connect(address: &Address) -> Result<Self, Error> {
        let no_daemon = |cause: tonic::transport::Error| Error::no_daemon(address, &cause);
        let endpoint = Endpoint::from_shared(address.to_string()).map_err(no_daemon)?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        endpoint.connect().await.map(Self).map_err(no_daemon)
    }

    /// Durable runs of graphs.
    pub(crate) fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Roles, graphs and models.
    pub(crate) fn catalog(&self) -> CatalogClient<Channel> {
        CatalogClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Decisions about who works.
    pub(crate) fn router(&self) -> RouterClient<Channel> {
        RouterClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Devices, and the engines on them.
    pub(crate) fn fleet(&self) -> FleetClient<Channel> {
        FleetClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE)
    }
}

/// A request that the daemon answers at once, with a deadline. Streams, and what waits for a model, go without.
pub(crate) fn prompt<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<Address>().map_or_else(|e| format!("error: {e}"), |address| address.to_string())
    }

    #[test]
    fn an_address_may_leave_out_scheme_and_port() {
        assert_eq!(shown("http://127.0.0.1:7430"), "http://127.0.0.1:7430");
        assert_eq!(shown("http://127.0.0.1:80/"), "http://127.0.0.1:80");
        assert_eq!(shown("localhost:1234"), "http://localhost:1234");
        assert_eq!(shown("localhost"), "http://localhost:7430");
        assert_eq!(shown("[::1]:99"), "http://[::1]:99");
        assert_eq!(shown("[::1]"), "http://[::1]:7430");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "https://localhost", "http://", "localhost:x", "localhost:99999", "a b", "h:1/path", "u@h:1"] {
            assert!(shown(text).starts_with("error: "), "{text:?} is taken as {}", shown(text));
        }
    }
}

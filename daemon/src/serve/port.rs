//! The port of the daemon: where it listens, what it is encrypted with, and what it answers.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use artel_accept::{Acceptor, ConnectionLimits, ConnectionPlaces, SocketError, UnixSocket, raise_descriptor_limit};
use artel_access::PublishedAddress;
use artel_actors::Runtime;
use artel_http::{ConnectionTimeouts, HostRules, OriginRules, Pages, PortSockets, Readiness, TlsFiles, TlsIdentity};
use artel_metrics::ConnectionMetrics;
use artel_roles::{HttpSettings, TlsSettings};
use futures::FutureExt as _;
use tokio::net::TcpListener;
use tokio::task::unconstrained;
use tokio_util::sync::CancellationToken;

/// The Unix socket in the data directory.
const SOCKET_FILE: &str = "artel.sock";
/// A watch of a task is a request while it is open. Each takes some kilobytes, and a megabyte or more while its message is read.
const MAX_REQUESTS: u32 = 4096;
/// Connections over the Unix socket: more than programs of one user have. Their descriptors are among those that connections over
/// TCP leave free.
const MAX_SOCKET_CONNECTIONS: usize = 128;

/// Where the port listens, and its rules.
#[derive(Debug)]
pub(crate) struct PortConfig {
    pub(crate) listen: SocketAddr,
    /// The Unix socket.
    pub(crate) socket: PathBuf,
    pub(crate) tls: Option<TlsSettings>,
    pub(super) hosts: HostRules,
    pub(super) origins: OriginRules,
    pub(super) max_requests: usize,
    /// The most connections in all and of one peer, if the settings say so.
    pub(super) max_connections: (Option<usize>, Option<usize>),
    /// How long connections may be without a call.
    pub(super) timeouts: ConnectionTimeouts,
}

/// What the settings say of the port.
pub(super) struct PortSettings {
    pub(super) listen: SocketAddr,
    pub(super) socket: Option<PathBuf>,
    pub(super) tls: Option<TlsSettings>,
    pub(super) http: HttpSettings,
    pub(super) max_connections: (Option<usize>, Option<usize>),
    pub(super) timeouts: ConnectionTimeouts,
}

/// Other machines can reach the port, and read what is sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} can be reached from other machines, and nothing encrypts what is sent there")]
pub(crate) struct ExposedPort(pub(crate) SocketAddr);

impl ExposedPort {
    /// What to write.
    pub(crate) fn help(self) -> String {
        format!(
            "write one of these lines in the settings:\n\
             tls: {{certificate: cert.pem, key: key.pem}}   # the daemon encrypts with this pair\n\
             tls: proxy   # a proxy in front of {} encrypts\n\
             listen: 127.0.0.1:{}   # this machine alone",
            self.0,
            self.0.port()
        )
    }
}

impl PortConfig {
    pub(super) fn new(settings: PortSettings, data: &Path) -> Result<Self> {
        let PortSettings { listen, socket, tls, http, max_connections, timeouts } = settings;
        let origins = OriginRules::new(http.origins);
        Ok(Self {
            listen,
            socket: socket.unwrap_or_else(|| data.join(SOCKET_FILE)),
            tls,
            hosts: HostRules::new(http.hosts),
            origins: origins.map_err(|error| anyhow!("the settings are invalid:\n`http.origins`: {error}"))?,
            max_requests: http.requests.unwrap_or(MAX_REQUESTS) as usize,
            max_connections,
            timeouts,
        })
    }

    /// Whether what is sent to the port stays on this machine, or is encrypted.
    pub(crate) fn check_exposure(&self) -> Result<(), ExposedPort> {
        match self.listen.ip().to_canonical().is_loopback() || self.tls.is_some() {
            true => Ok(()),
            false => Err(ExposedPort(self.listen)),
        }
    }

    /// The files that TCP is encrypted with, if the daemon does it.
    pub(crate) fn tls_files(&self) -> Option<TlsFiles> {
        match self.tls.clone()? {
            TlsSettings::Files { certificate, key, client_ca } => Some(TlsFiles { certificate, key, client_ca }),
            TlsSettings::Proxy => None,
        }
    }
}

/// A port that listens over TCP, so that no other daemon takes its address; its Unix socket follows.
pub(super) struct ListeningPort {
    pub(super) address: SocketAddr,
    tls: Option<Arc<TlsIdentity>>,
    tcp: Acceptor<TcpListener>,
    limits: ConnectionLimits,
    metrics: ConnectionMetrics,
}

impl ListeningPort {
    /// Reads the files of TLS and listens, with the limits that follow from the descriptors of the process.
    pub(super) async fn listen(config: &PortConfig, metrics: ConnectionMetrics) -> Result<Self> {
        config.check_exposure().map_err(|exposed| anyhow!("{exposed}: {}", exposed.help()))?;
        let tls = config.tls_files().map(TlsIdentity::load).transpose().context("failed to start TLS")?;
        let listener = TcpListener::bind(config.listen).await;
        let listener = listener.map_err(|error| listen_problem(config.listen, &error))?;
        let limits = connection_limits(config);
        let places = ConnectionPlaces::new(limits).with_metrics(metrics.clone());
        let tcp = Acceptor::new(listener, places);
        let address = tcp.local_addr().context("failed to read the listening address")?;
        Ok(Self { address, tls, tcp, limits, metrics })
    }

    /// Listens on the Unix socket as well. The data directory exists by now, and is this daemon's alone.
    pub(super) fn with_socket(self, path: &Path) -> Result<(PortSockets, Option<Arc<TlsIdentity>>)> {
        let unix = UnixSocket::bind(path).map_err(|error| socket_problem(&error))?;
        tracing::info!(path = %unix.path().display(), "the Unix socket of this user");
        // Places of its own: whatever comes over TCP, the daemon's user reaches it.
        let total = self.limits.total.min(MAX_SOCKET_CONNECTIONS);
        let limits = ConnectionLimits { total, per_peer: total };
        let unix = Some(Acceptor::new(unix, ConnectionPlaces::new(limits).with_metrics(self.metrics)));
        Ok((PortSockets { tcp: self.tcp, unix }, self.tls))
    }
}

fn listen_problem(address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let help = match error.kind() {
        io::ErrorKind::AddrInUse => "another daemon may be running there; choose another address with `--listen`",
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege; choose another one with `--listen`",
        _ => "choose an address of this machine with `--listen`",
    };
    anyhow!("failed to listen on {address}: {error}: {help}")
}

/// Says in the data directory where this daemon listens. Without that, the verbs of its user have the Unix socket.
pub(super) fn publish(data: &Path, address: SocketAddr) -> Option<PublishedAddress> {
    let published = PublishedAddress::publish(data, address);
    let warn = |error: &io::Error| {
        tracing::warn!(
            %error, path = %data.display(),
            "failed to write the listening address into the data directory: over TCP, verbs do not send the owner's token by themselves"
        );
    };
    published.inspect_err(warn).ok()
}

fn socket_problem(error: &SocketError) -> anyhow::Error {
    let help = match error {
        SocketError::InUse(_) => "another daemon may be running",
        SocketError::TooLong { .. } | SocketError::NotASocket(_) | SocketError::Io { .. } => {
            "choose another path with `socket: FILE` in the settings, and clients with `--address unix:FILE`"
        }
    };
    anyhow!("failed to listen on the Unix socket {error}: {help}")
}

fn connection_limits(config: &PortConfig) -> ConnectionLimits {
    let descriptors = raise_descriptor_limit();
    let (total, per_peer) = config.max_connections;
    let limits = ConnectionLimits::within(descriptors, 1, total, per_peer);
    tracing::info!(descriptors, connections = limits.total, per_peer = limits.per_peer, "the limits of connections");
    if let Some(wanted) = total.filter(|wanted| *wanted > limits.total) {
        tracing::warn!(
            wanted,
            possible = limits.total,
            "`connections.max` needs more open files than the process may have"
        );
    }
    limits
}

/// The pages of a daemon with this runtime, without metrics.
pub(super) fn pages(runtime: Runtime, draining: CancellationToken) -> Pages {
    Pages::new(move || readiness(&runtime, &draining))
}

/// Whether work is accepted.
fn readiness(runtime: &Runtime, draining: &CancellationToken) -> Readiness {
    if draining.is_cancelled() {
        return Readiness::NotReady("it is shutting down".to_owned());
    }
    // Without the budget of the task, which may be used up: then even what is there is not seen.
    match unconstrained(runtime.journal_failed()).now_or_never() {
        None => Readiness::Ready,
        Some(failure) => Readiness::NotReady(match &*failure {
            artel_journal::Error::Full { .. } => "the disk of its journal is full".to_owned(),
            _ => "its journal takes no writes; see its log".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str, tls: Option<TlsSettings>) -> PortConfig {
        const SECOND: std::time::Duration = std::time::Duration::from_secs(1);
        let timeouts = ConnectionTimeouts { handshake: SECOND, idle: SECOND, close: SECOND };
        let (listen, http) = (listen.parse().unwrap(), HttpSettings::default());
        let settings = PortSettings { listen, socket: None, tls, http, max_connections: (None, None), timeouts };
        PortConfig::new(settings, Path::new("/data")).unwrap()
    }

    #[test]
    fn an_address_that_others_reach_needs_tls() {
        for loopback in ["127.0.0.1:7430", "127.9.9.9:1", "[::1]:7430", "[::ffff:127.0.0.1]:7430"] {
            assert_eq!(config(loopback, None).check_exposure(), Ok(()), "{loopback}");
        }
        for exposed in ["0.0.0.0:7430", "192.168.1.5:7430", "[::]:7430"] {
            let help = config(exposed, None).check_exposure().unwrap_err().help();
            assert!(
                help.contains("tls: {certificate: cert.pem, key: key.pem}") && help.contains("tls: proxy"),
                "{help}"
            );
            assert_eq!(config(exposed, Some(TlsSettings::Proxy)).check_exposure(), Ok(()), "{exposed}");
        }
    }

    #[test]
    fn the_socket_lies_in_the_data_directory() {
        assert_eq!(config("127.0.0.1:0", None).socket, Path::new("/data/artel.sock"));
    }
}

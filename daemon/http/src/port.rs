//! The port: its routes, its rules, and the loop that serves its connections.

use std::future::pending;
use std::sync::Arc;

use artel_accept::{Acceptor, ConnectionSlot, UnixSocket};
use axum::Router;
use tokio::net::{TcpListener, UnixStream};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::connection::{ConnectionEnd, ConnectionServer, ConnectionTimeouts};
use crate::gate::{Gate, GateRules, RefusalObserver};
use crate::host_rules::HostRules;
use crate::origin_rules::OriginRules;
use crate::tls::TlsIdentity;

/// What a port serves, and to which requests.
pub struct Port {
    /// The services of gRPC, for gRPC-Web as well.
    pub grpc: Router,
    /// The routes of plain HTTP: [`Pages::routes`](crate::Pages::routes), merged with others, which have no fallback.
    pub pages: Router,
    /// The hosts that a request may name.
    pub hosts: HostRules,
    /// The origins whose pages may call.
    pub origins: OriginRules,
    /// The most requests that are answered at once, streams among them.
    pub max_requests: usize,
    /// How long connections may be without a call.
    pub timeouts: ConnectionTimeouts,
    /// What TCP is encrypted with.
    pub tls: Option<Arc<TlsIdentity>>,
    /// Is told of refused requests.
    pub observer: Option<RefusalObserver>,
    /// Cancelled when the port closes.
    pub closing: CancellationToken,
}

/// The sockets of a port.
pub struct PortSockets {
    /// For other machines, and for the loopback.
    pub tcp: Acceptor<TcpListener>,
    /// For processes of the daemon's user.
    pub unix: Option<Acceptor<UnixSocket>>,
}

impl Port {
    /// Serves until `closing` is cancelled, and then until the open calls have ended or their time is over. Returns how many
    /// connections were cut off.
    pub async fn serve(self, sockets: PortSockets) -> usize {
        let PortSockets { mut tcp, mut unix } = sockets;
        let rules = GateRules::new(self.hosts, self.origins, self.max_requests, self.observer);
        let gate = Gate::new(rules, self.grpc, self.pages);
        let (timeouts, tls, closing) = (self.timeouts, self.tls, self.closing);
        let server = ConnectionServer { gate, timeouts, tls, closing: closing.clone() };
        let mut connections = JoinSet::new();
        let mut cut_off = 0;
        loop {
            tokio::select! {
                () = closing.cancelled() => break,
                (stream, slot) = tcp.accept() => {
                    connections.spawn(server.clone().serve_tcp(stream, slot));
                }
                (stream, slot) = accept(unix.as_mut()) => {
                    connections.spawn(server.clone().serve_unix(stream, slot));
                }
                Some(end) = connections.join_next() => cut_off += count_cut_off(end),
            }
        }
        // New clients are refused by the system.
        drop((tcp, unix));
        while let Some(end) = connections.join_next().await {
            cut_off += count_cut_off(end);
        }
        cut_off
    }
}

/// The next connection of a socket, if there is one.
async fn accept(unix: Option<&mut Acceptor<UnixSocket>>) -> (UnixStream, ConnectionSlot) {
    match unix {
        Some(acceptor) => acceptor.accept().await,
        None => pending().await,
    }
}

fn count_cut_off(end: Result<ConnectionEnd, JoinError>) -> usize {
    match end {
        Ok(ConnectionEnd::CutOff) => 1,
        Ok(ConnectionEnd::Closed) => 0,
        Err(error) => {
            tracing::error!(%error, "serving a connection panicked; others go on");
            0
        }
    }
}

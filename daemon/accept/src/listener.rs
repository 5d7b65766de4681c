//! The sockets that connections are accepted from.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use crate::peer_address::PeerAddress;

/// A connection that is silent for this long is probed, so that a peer that vanished is found.
const KEEPALIVE_DELAY: Duration = Duration::from_secs(60);
/// The time between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Probes without an answer after which the connection has failed.
const KEEPALIVE_PROBES: u32 = 4;

/// A socket that connections are accepted from.
pub trait Listener: Send {
    /// A connection.
    type Stream: Send;

    /// The next connection, and its other end. If the future is dropped, no connection is lost.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, PeerAddress)>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    /// Without Nagle's delay and with keepalive.
    async fn accept(&mut self) -> io::Result<(TcpStream, PeerAddress)> {
        let (stream, address) = Self::accept(self).await?;
        let peer = PeerAddress::Tcp(address);
        tune(&stream, peer);
        Ok((stream, peer))
    }
}

/// Sets the options of an accepted socket.
fn tune(stream: &TcpStream, peer: PeerAddress) {
    let keepalive = TcpKeepalive::new();
    let keepalive =
        keepalive.with_time(KEEPALIVE_DELAY).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    // An answer is many small writes, each of which would otherwise wait for the acknowledgement of the one before.
    let tuned = stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_keepalive(&keepalive));
    if let Err(error) = tuned {
        // The connection works without, and fails when it is read if the peer is gone.
        tracing::debug!(%peer, %error, "failed to set the options of a connection");
    }
}

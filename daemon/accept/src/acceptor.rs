//! The accept loop.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::connection_places::ConnectionPlaces;
use crate::connection_table::ConnectionSlot;
use crate::listener::Listener;
use crate::log_throttle::LogThrottle;
use crate::peer_address::PeerAddress;

/// The pause after the first of several errors; it doubles with each further one.
const MIN_ERROR_BACKOFF: Duration = Duration::from_millis(10);
/// The longest pause: a connection that waits meanwhile is accepted afterwards.
const MAX_ERROR_BACKOFF: Duration = Duration::from_secs(1);

/// Accepts the connections of a socket within limits.
#[derive(Debug)]
pub struct Acceptor<L = TcpListener> {
    listener: L,
    places: ConnectionPlaces,
    backoff: Duration,
    refusals: LogThrottle,
    evictions: LogThrottle,
    failures: LogThrottle,
}

impl Acceptor<TcpListener> {
    /// The address of the socket.
    ///
    /// # Errors
    /// The system does not tell it.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl<L: Listener> Acceptor<L> {
    /// Accepts from this socket.
    pub fn new(listener: L, places: ConnectionPlaces) -> Self {
        places.expect_acceptor();
        let (refusals, evictions, failures) = Default::default();
        Self { listener, places, backoff: MIN_ERROR_BACKOFF, refusals, evictions, failures }
    }

    /// The next connection within the limits. Others are closed. Waits after an error and goes on. If the future is dropped, no
    /// connection is lost.
    pub async fn accept(&mut self) -> (L::Stream, ConnectionSlot) {
        loop {
            let socket = self.places.socket().await;
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.backoff = MIN_ERROR_BACKOFF;
                    match self.places.admit(peer) {
                        Some(mut slot) => {
                            slot.socket = Some(socket);
                            if slot.has_evicted {
                                self.log_eviction(peer);
                            }
                            return (stream, slot);
                        }
                        None => self.log_refusal(peer),
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => self.pause_after(&error).await,
            }
        }
    }

    fn log_eviction(&mut self, peer: PeerAddress) {
        if let Some(evicted) = self.evictions.count() {
            tracing::warn!(%peer, evicted, "as many connections as allowed are open: idle ones are closed for new ones");
        }
    }

    fn log_refusal(&mut self, peer: PeerAddress) {
        if let Some(refused) = self.refusals.count() {
            tracing::warn!(%peer, refused, "connections are refused, since as many as allowed are open and in use");
        }
    }

    /// After an error of this process or its machine, such as too many open files.
    async fn pause_after(&mut self, error: &io::Error) {
        if let Some(failures) = self.failures.count() {
            tracing::error!(%error, failures, "failed to accept a connection; others are accepted after a pause");
        }
        // It may be the descriptor that the next connection needs.
        self.places.evict_idle();
        let pause = self.backoff;
        self.backoff = (self.backoff * 2).min(MAX_ERROR_BACKOFF);
        tokio::time::sleep(pause).await;
    }
}

/// Whether an error concerns only the connection that would have been accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpStream;

    use super::*;
    use crate::ConnectionLimits;

    async fn acceptor(total: usize) -> (Acceptor, SocketAddr) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let acceptor = Acceptor::new(listener, ConnectionPlaces::new(ConnectionLimits { total, per_peer: total }));
        let address = acceptor.local_addr().unwrap();
        (acceptor, address)
    }

    #[tokio::test]
    async fn an_accepted_socket_sends_at_once_and_probes_its_peer() {
        let (mut acceptor, address) = acceptor(1).await;
        let _client = TcpStream::connect(address).await.unwrap();
        let (stream, slot) = acceptor.accept().await;
        assert!(stream.nodelay().unwrap());
        assert!(SockRef::from(&stream).keepalive().unwrap());
        assert!(matches!(slot.peer(), PeerAddress::Tcp(peer) if peer.ip().is_loopback()));
    }

    #[tokio::test]
    async fn a_connection_beyond_the_limit_is_closed_at_once_and_the_next_one_is_served() {
        let (mut acceptor, address) = acceptor(1).await;
        let first = TcpStream::connect(address).await.unwrap();
        let (stream, slot) = acceptor.accept().await;
        let call = slot.begin_call();
        call.admit();
        let mut refused = TcpStream::connect(address).await.unwrap();
        let mut byte = [0];
        let closed = tokio::select! {
            _ = acceptor.accept() => panic!("it is beyond the limit"),
            closed = refused.read(&mut byte) => closed,
        };
        assert_eq!(closed.unwrap_or_default(), 0);
        drop((first, stream, call, slot));
        let _next = TcpStream::connect(address).await.unwrap();
        acceptor.accept().await;
    }

    #[tokio::test]
    async fn connections_that_make_room_are_closed_before_many_more_are_accepted() {
        let (mut acceptor, address) = acceptor(4).await;
        let clients: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let mut open = Vec::new();
        for _ in 0..6 {
            open.push(acceptor.accept().await);
        }
        // Two are evicted and not closed yet, so that no more sockets are opened.
        let (stream, slot) = tokio::select! {
            biased;
            _ = acceptor.accept() => panic!("it waits for one of them"),
            () = open[0].1.evicted() => open.remove(0),
        };
        drop((stream, slot));
        acceptor.accept().await;
        drop(clients);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_are_one_line_and_the_pauses_grow() {
        let (mut acceptor, _) = acceptor(1).await;
        let start = tokio::time::Instant::now();
        for _ in 0..8 {
            acceptor.pause_after(&io::Error::from_raw_os_error(nix::libc::EMFILE)).await;
        }
        // 10, 20, 40, ... 640 ms, then a second.
        assert_eq!(start.elapsed(), Duration::from_millis(1270 + 1000));
        assert_eq!(acceptor.failures.count(), None);
    }
}

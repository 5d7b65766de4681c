//! One connection: its encryption, its requests, how long it may idle, and its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use artel_accept::{ConnectionSlot, Peer, PeerAddress};
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::connection_io::ConnectionIo;
use crate::counted_body::CountedBody;
use crate::gate::{Arrival, Gate, MAX_HEADER_BYTES};
use crate::plain_text;
use crate::tls::TlsIdentity;

/// Concurrent streams of one connection: more than one client needs to watch.
const MAX_STREAMS: u32 = 1024;
/// Streams that a client opened and reset before they were looked at. Beyond, the connection ends: the client only makes work.
const MAX_PENDING_RESET_STREAMS: usize = 20;
/// Streams that were reset because the client broke the protocol. Beyond, the connection ends.
const MAX_ERROR_RESET_STREAMS: usize = 1024;
/// The buffer of an HTTP/1.1 connection. Headers that do not fit are refused without words; four times the limit of those that
/// are refused with words.
const MAX_BUFFER_BYTES: usize = 4 * MAX_HEADER_BYTES as usize;
/// Interval of HTTP/2 keepalive pings.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long a client may take to answer one.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client that is told to go away may take to close the connection, once no call is open.
const GO_AWAY_GRACE: Duration = Duration::from_secs(1);

/// How long a connection may be without a call, and how long its calls may go on when the server closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionTimeouts {
    /// From its start until its first call; over HTTP/1.1, also from the end of each call until the head of the next one.
    pub handshake: Duration,
    /// After each call.
    pub idle: Duration,
    /// From the moment the server closes.
    pub close: Duration,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionEnd {
    /// The client closed it, or it had nothing to do any more.
    Closed,
    /// It was cut off with open calls when the server closed.
    CutOff,
}

/// What all connections share.
#[derive(Clone)]
pub(crate) struct ConnectionServer {
    pub(crate) gate: Gate,
    pub(crate) timeouts: ConnectionTimeouts,
    /// What TCP is encrypted with.
    pub(crate) tls: Option<Arc<TlsIdentity>>,
    pub(crate) closing: CancellationToken,
}

impl ConnectionServer {
    /// Serves a TCP connection until the client closes it, it idles for too long, another one needs its place, or `closing` is
    /// cancelled.
    pub(crate) async fn serve_tcp(self, stream: TcpStream, slot: ConnectionSlot) -> ConnectionEnd {
        let PeerAddress::Tcp(address) = slot.peer() else { unreachable!("a TCP connection has an address") };
        // Without it, the names of the loopback and of the settings are what remains.
        let local = stream.local_addr().as_ref().map_or(address.ip(), SocketAddr::ip);
        let Some(tls) = &self.tls else {
            let peer = Peer::Tcp { address, is_encrypted: false, certificate_name: None };
            return self.serve(ConnectionIo::new(stream), slot, Arrival { peer, local: Some(local) }).await;
        };
        let encrypted = tokio::select! {
            encrypted = encrypt(tls, stream, address) => encrypted,
            () = slot.evicted() => None,
            () = slot.idle_for(self.timeouts.handshake, self.timeouts.idle) => None,
            () = self.closing.cancelled() => None,
        };
        let Some((io, certificate_name)) = encrypted else { return ConnectionEnd::Closed };
        let peer = Peer::Tcp { address, is_encrypted: true, certificate_name };
        self.serve(io, slot, Arrival { peer, local: Some(local) }).await
    }

    /// The same for a connection over a Unix socket, which is not encrypted.
    pub(crate) async fn serve_unix(self, stream: UnixStream, slot: ConnectionSlot) -> ConnectionEnd {
        let PeerAddress::Unix { user_id } = slot.peer() else { unreachable!("a Unix socket has users") };
        self.serve(ConnectionIo::new(stream), slot, Arrival { peer: Peer::Unix { user_id }, local: None }).await
    }

    async fn serve<I>(self, io: I, slot: ConnectionSlot, arrival: Arrival) -> ConnectionEnd
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { gate, timeouts, closing, .. } = self;
        let (slot, arrival) = (Arc::new(slot), Arc::new(arrival));
        let calls = slot.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            // A call is open until its response was sent or dropped.
            let (call, gate, arrival) = (calls.begin_call(), gate.clone(), arrival.clone());
            async move {
                let answer = gate.answer(request.map(Body::new), &arrival, &call).await;
                Ok::<_, Infallible>(answer.response.map(|body| CountedBody::new(body, call, answer.request)))
            }
        });
        let http = http(timeouts);
        let mut served = pin!(http.serve_connection(TokioIo::new(io), service));
        tokio::select! {
            // It fails when the client goes away, which is a way to close it.
            _ = &mut served => return ConnectionEnd::Closed,
            () = slot.evicted() => {}
            () = slot.idle_for(timeouts.handshake, timeouts.idle) => {}
            () = closing.cancelled() => {}
        }
        // The client is told to go away: calls that are open, or on their way, go on.
        served.as_mut().graceful_shutdown();
        let idle = async {
            tokio::time::sleep(GO_AWAY_GRACE).await;
            slot.without_calls().await;
        };
        let out_of_time = async {
            closing.cancelled().await;
            tokio::time::sleep(timeouts.close).await;
        };
        // Whatever is left of the connection ends with `served`.
        tokio::select! {
            _ = &mut served => ConnectionEnd::Closed,
            () = slot.evicted() => ConnectionEnd::Closed,
            () = idle => ConnectionEnd::Closed,
            () = out_of_time => ConnectionEnd::CutOff,
        }
    }
}

/// The stream encrypted, and the common name of the client's certificate, if it has shown one.
async fn encrypt(
    tls: &Arc<TlsIdentity>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(TlsStream<ConnectionIo<TcpStream>>, Option<String>)> {
    if plain_text::begins(&stream).await {
        plain_text::refuse(stream).await;
        return None;
    }
    tls.accept(ConnectionIo::new(stream), peer).await
}

/// HTTP/1.1 and HTTP/2, whichever the client begins with.
fn http(timeouts: ConnectionTimeouts) -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(timeouts.handshake).max_buf_size(MAX_BUFFER_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_pending_accept_reset_streams(MAX_PENDING_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_ERROR_RESET_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(MAX_STREAMS);
    http
}

//! One connection: its calls, how long it may idle, and its end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use artel_accept::ConnectionSlot;
use futures::{StreamExt as _, stream};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::connection_io::ConnectionIo;
use crate::counted_calls::{CountedCalls, Services};

/// Concurrent streams of one connection: more than one client needs to watch.
const MAX_STREAMS: u32 = 1024;
/// Streams that a client opened and reset before they were looked at. Beyond, the connection ends: the client only makes work.
const MAX_PENDING_RESET_STREAMS: usize = 20;
/// Streams that were reset because the client broke the protocol. Beyond, the connection ends.
const MAX_ERROR_RESET_STREAMS: usize = 1024;
/// The most bytes of a call's headers: a path, a deadline and some metadata.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// Interval of HTTP/2 keepalive pings.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long a client may take to answer one.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client that is told to go away may take to close the connection, once no call is open.
const GO_AWAY_GRACE: Duration = Duration::from_secs(1);

/// How long a connection may be without a call, and how long its calls may go on when the server closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionTimeouts {
    /// From its start until its first call.
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

/// The settings of HTTP/2.
pub(crate) fn http2() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESET_STREAMS))
        .http2_max_local_error_reset_streams(Some(MAX_ERROR_RESET_STREAMS))
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
}

/// Serves a connection until the client closes it, it idles for too long, another one needs its place, or `closing` is cancelled.
pub(crate) async fn serve(
    services: Services,
    stream: TcpStream,
    slot: ConnectionSlot,
    timeouts: ConnectionTimeouts,
    closing: CancellationToken,
) -> ConnectionEnd {
    let (slot, cut, ending) = (Arc::new(slot), CancellationToken::new(), CancellationToken::new());
    let (io, ended) = ConnectionIo::new(stream, cut.clone());
    // A server of one connection: it tells only this client to go away. It ends when the connection has ended.
    let one =
        stream::iter([Ok::<_, io::Error>(io)]).chain(stream::once(ended.cancelled_owned()).filter_map(async |()| None));
    let served = http2().serve_with_incoming_shutdown(
        CountedCalls::new(services, slot.clone()),
        one,
        ending.clone().cancelled_owned(),
    );
    let mut served = std::pin::pin!(served);
    tokio::select! {
        _ = &mut served => return ConnectionEnd::Closed,
        () = slot.evicted() => {}
        () = slot.idle_for(timeouts.handshake, timeouts.idle) => {}
        () = closing.cancelled() => {}
    }
    // The client is told to go away: calls that are open, or on their way, go on.
    ending.cancel();
    let idle = async {
        tokio::time::sleep(GO_AWAY_GRACE).await;
        slot.without_calls().await;
    };
    let out_of_time = async {
        closing.cancelled().await;
        tokio::time::sleep(timeouts.close).await;
    };
    let end = tokio::select! {
        _ = &mut served => return ConnectionEnd::Closed,
        () = slot.evicted() => ConnectionEnd::Closed,
        () = idle => ConnectionEnd::Closed,
        () = out_of_time => ConnectionEnd::CutOff,
    };
    // Reading and writing fail now, so that the server of this connection ends at once.
    cut.cancel();
    let _ = served.await;
    end
}

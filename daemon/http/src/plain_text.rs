//! What a client is told that speaks plain HTTP to a port with TLS.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The answer, in the words of other errors. A client of gRPC over HTTP/2 cannot read it, and fails.
const ANSWER: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
                      {\"error\":{\"code\":\"tls_required\",\"message\":\"this port speaks TLS: use https\"}}";
/// As much of the request is taken off the connection, so that closing it does not take the answer back.
const MAX_REQUEST_BYTES: u64 = 64 << 10;

/// Whether a client begins with plain HTTP, which begins with a method; a record of TLS begins with a control character.
pub(crate) async fn begins(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1)) && first[0].is_ascii_uppercase()
}

/// Tells the client to use TLS, until it closes.
pub(crate) async fn refuse(mut stream: TcpStream) {
    let refused = async {
        stream.write_all(ANSWER.as_bytes()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(MAX_REQUEST_BYTES), &mut tokio::io::sink()).await
    };
    // It has gone, or has read the answer.
    let _ = refused.await;
}

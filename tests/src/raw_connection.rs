//! Connections to a daemon that speak no protocol, or only a part of one.

use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;

use crate::Daemon;

/// The preface of HTTP/2, and an empty SETTINGS frame.
pub const HTTP2_HANDSHAKE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The beginning of an HTTP/2 connection whose client takes no byte of any answer's body.
pub const HTTP2_CLOSED_WINDOW: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";

/// A HEADERS frame of HTTP/2 that begins a request on this stream, and ends it if nothing follows. Its fields are not compressed
/// (RFC 7541, 6.2.2).
pub fn http2_headers(stream: u32, headers: &[(&str, &str)], ends: bool) -> Vec<u8> {
    const END_STREAM_CODE: u8 = 0x1;
    const END_HEADERS_CODE: u8 = 0x4;
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text"));
            block.extend(text.as_bytes());
        }
    }
    let flags = END_HEADERS_CODE | if ends { END_STREAM_CODE } else { 0 };
    let length = u32::try_from(block.len()).unwrap().to_be_bytes();
    [&length[1..], &[0x1, flags], &stream.to_be_bytes(), &block].concat()
}

/// Connects, without blocking later on.
pub fn connect(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(daemon.address.strip_prefix("http://").unwrap()).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Whether the other side has closed a connection; what it sent before is dropped.
pub fn is_closed(mut stream: &TcpStream) -> bool {
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

//! Connections to a daemon that speak no protocol, or only a part of one.

use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;

use crate::Daemon;

/// The preface of HTTP/2, and an empty SETTINGS frame.
pub const HTTP2_HANDSHAKE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

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

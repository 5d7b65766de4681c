//! What is at the other end of a connection, as far as the connection itself tells.

use std::net::SocketAddr;

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A client over TCP.
    Tcp {
        /// Its address.
        address: SocketAddr,
        /// Whether the connection is encrypted by TLS that ends in this process.
        is_encrypted: bool,
        /// The subject's common name of the client certificate, if one was presented and verified.
        certificate_name: Option<String>,
    },
    /// A process of this machine over a Unix socket.
    Unix {
        /// Its user, from the credentials that the kernel gives.
        user_id: u32,
    },
}

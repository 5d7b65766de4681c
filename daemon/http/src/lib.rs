//! The edge of the daemon's port: from a connection to a request that may be answered.
//!
//! One port speaks gRPC over HTTP/2, gRPC-Web, and plain HTTP, with or without TLS, over TCP and over a Unix socket. A connection
//! comes in from `artel-accept`, is encrypted if [`TlsFiles`] say so, and gets a [`Peer`](artel_accept::Peer), which every one
//! of its requests carries in its extensions. A request passes a gate in which its host, its origin and its size are
//! checked, and goes to one of two routers: that of gRPC, or that of pages. What is refused is refused in words: as a status
//! to a client of gRPC, as JSON to any other.
//!
//! What the routes do, what a caller may do and what a metric is are not known here: the program that serves composes a [`Port`]
//! from routers, closures and sockets. Nothing of a request is logged but the host or the origin for which it was refused.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod body_limits;
mod certificate;
mod connection;
mod connection_io;
mod counted_body;
mod gate;
mod host_rules;
mod origin_rules;
mod pages;
mod plain_text;
mod port;
mod refusal;
#[cfg(test)]
mod tests;
mod tls;
mod tls_files;

pub use body_limits::with_body_limits;
pub use certificate::{CertificateError, CertificateValidity};
pub use connection::ConnectionTimeouts;
pub use gate::RefusalObserver;
pub use host_rules::HostRules;
pub use origin_rules::{InvalidOrigin, OriginRules};
pub use pages::{Pages, Readiness};
pub use port::{Port, PortSockets};
pub use tls::TlsIdentity;
pub use tls_files::{TlsError, TlsFiles};

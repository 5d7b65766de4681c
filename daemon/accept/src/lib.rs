//! Accepts connections over TCP and Unix sockets: so many in all and so many of each peer, and never an end because of one of them.
//!
//! An [`Acceptor`] gives each connection with a [`ConnectionSlot`], which counts its calls and says how long it has idled. At a
//! limit, the connection that has idled longest makes room; without one, the new connection is closed at once. If a connection
//! cannot be accepted, for example because the process has no descriptor left, the acceptor pauses and goes on. What it refuses
//! and what fails are a line of the log each, however often it happens.
//!
//! The limits follow from the number of descriptors that the process may have, see [`ConnectionLimits::within`]. What is said on
//! a connection is not known here, and neither is what a peer may do: a Unix socket admits the processes of one user, and
//! [`Peer`] says at the other end of which connection a request began.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod acceptor;
mod connection_places;
mod connection_table;
mod descriptors;
mod listener;
mod log_throttle;
mod peer;
mod peer_address;
mod unix_socket;

pub use acceptor::Acceptor;
pub use connection_places::ConnectionPlaces;
pub use connection_table::{ConnectionSlot, OpenCall};
pub use descriptors::{ConnectionLimits, raise_descriptor_limit};
pub use listener::Listener;
pub use log_throttle::LogThrottle;
pub use peer::Peer;
pub use peer_address::{PeerAddress, peer_network};
pub use unix_socket::{SocketError, UnixSocket};

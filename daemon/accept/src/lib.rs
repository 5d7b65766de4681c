//! Accepts TCP connections: so many in all and so many of each peer, and never an end because of one of them.
//!
//! An [`Acceptor`] gives each connection with a [`ConnectionSlot`], which counts its calls and says how long it has idled. At a
//! limit, the connection that has idled longest makes room; without one, the new connection is closed at once. If a connection
//! cannot be accepted, for example because the process has no descriptor left, the acceptor pauses and goes on. What it refuses
//! and what fails are a line of the log each, however often it happens.
//!
//! The limits follow from the number of descriptors that the process may have, see [`ConnectionLimits::within`]. What is said on
//! a connection is not known here.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod acceptor;
mod connection_table;
mod descriptors;
mod log_throttle;

pub use acceptor::Acceptor;
pub use connection_table::{ConnectionSlot, OpenCall};
pub use descriptors::{ConnectionLimits, raise_descriptor_limit};

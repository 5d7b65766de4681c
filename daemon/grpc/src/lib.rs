//! The gRPC edge of the daemon: the services of package `artel.v1` over a [`Runtime`](artel_actors::Runtime).
//!
//! A request goes in as a generated message, is parsed into the runtime's own types or refused with every fault of it at once,
//! and the answer is converted back. No generated type passes this crate. Errors become statuses in one table: a message for
//! the client without the daemon's own paths, the cause for the log.
//!
//! What lies below the runtime is seen through [`Machine`]: the devices with their monitors' readings, and the memory that a
//! model would take. This crate does not know how engines are loaded or where they run, has no llama.cpp, and reads no
//! settings: the program that serves composes it from a [`ServiceState`] and a listening socket.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod catalog;
mod connection;
mod connection_io;
mod convert;
mod counted_calls;
mod engines;
mod field_error;
mod machine;
mod malformed;
mod page;
mod reload_status;
mod router;
mod server;
mod server_paths;
mod size;
mod state;
mod status;
mod task_view;
mod tasks;
#[cfg(test)]
mod tests;
mod unreadable_task;
mod value;
mod watch;

pub use connection::ConnectionTimeouts;
pub use machine::{DeviceStatus, GpuReading, Machine};
pub use reload_status::ReloadStatus;
pub use server::{Error, serve};
pub use server_paths::ServerPaths;
pub use state::ServiceState;

//! The gRPC edge of the daemon: the services of package `artel.v1` over a [`Runtime`](artel_actors::Runtime).
//!
//! A request goes in as a generated message, is parsed into the runtime's own types or refused with every fault of it at once,
//! and the answer is converted back. No generated type passes this crate. Errors become statuses in one table: a message for
//! the client without the daemon's own paths, the cause for the log.
//!
//! Every call passes the [`AccessGate`], which finds its caller and what that caller may do; the services have the
//! [`Caller`](artel_access::Caller) in the extensions of the request.
//!
//! What lies below the runtime is seen through [`Machine`]: the devices with their monitors' readings, and the memory that a
//! model would take. This crate does not know how engines are loaded or where they run, has no llama.cpp, and reads no
//! settings. Neither does it know of sockets: from a [`ServiceState`] it makes [`routes`], which others serve.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod access_gate;
mod admin;
mod audit;
mod call_deadline;
mod call_tracer;
mod catalog;
mod convert;
mod ending_body;
mod engines;
mod field_error;
mod knowledge;
mod machine;
mod malformed;
mod metered_calls;
mod metered_pages;
mod models;
mod page;
mod refused_call;
mod reload_status;
mod router;
mod scrape;
mod server;
mod server_paths;
mod size;
mod state;
mod status;
mod task_view;
mod tasks;
#[cfg(test)]
mod tests;
mod training;
mod unreadable_task;
mod value;
mod viewer;
mod watch;

pub use access_gate::{AccessGate, AccessLayer};
pub use machine::{DeviceStatus, GpuReading, Machine};
pub use metered_pages::{MeteredPage, MeteredPages, MeteredPagesLayer};
pub use reload_status::ReloadStatus;
pub use server::{Error, routes};
pub use server_paths::ServerPaths;
pub use state::ServiceState;

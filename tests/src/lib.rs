//! The daemon from outside: the real binary, started on a free port of the loopback, with a journal of its own.
//!
//! Tests read as sentences: `daemon().with_yaml(ROLES).start().await.ask(...)`. Nothing here waits for time to pass: what
//! must happen first is awaited on the stream of events.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

mod ask;
mod cli;
mod crew;
mod daemon;
pub mod hub;
mod lender;
pub mod rehearsal;
pub mod tls;

pub use ask::{Ask, End, Run, ask};
pub use cli::{Cli, artel, python, repository};
pub use crew::crew;
pub use daemon::{Builder, Daemon, daemon, models};
pub use lender::Lender;

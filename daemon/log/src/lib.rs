//! The log of a daemon: records of `tracing` become lines of text, JSON or the journal, and a thread of its own writes them.
//!
//! Whatever logs puts its line into a queue with a limit in bytes and goes on. The thread takes what is there and writes it;
//! if what reads standard error stops, the thread waits, the queue fills, and further lines are dropped and counted. So a pipe
//! that is full, a terminal that is stopped or a disk that hangs holds up neither a task nor the end of the daemon. The
//! number of the lines that were dropped is a line of the log itself, at their place.
//!
//! The filter is a [`LogFilter`], which a [`FilterHandle`] replaces while the daemon runs. For the journal of systemd, a line
//! begins with its priority (`sd-daemon(3)`): systemd reads that from standard error, so that one way of writing serves all
//! formats, and nothing is lost if the journal is away for a while.
//!
//! This crate knows no settings and no daemon. A process whose last words count more than its pace, such as an engine that
//! llama.cpp may abort, starts its log with [`start_unbuffered`].
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod filter;
mod format;
mod handle;
mod journal_stream;
mod line_queue;
mod line_writer;
mod start;

pub use filter::{AUDIT_TARGET, DEFAULT_FILTER, InvalidFilter, LogFilter};
pub use format::LineFormat;
pub use handle::{FilterHandle, LogHandle};
pub use journal_stream::is_connected_to_journal;
pub use start::{LogLayer, Options, start, start_unbuffered};

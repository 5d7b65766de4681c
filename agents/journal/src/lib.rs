//! The durable event log: an acknowledged event is never lost.
//!
//! A [`Journal`] is one directory with one SQLite database. Tasks send their events to a single writer, which commits all
//! waiting requests in one transaction and answers them after the commit (group commit, WAL, `synchronous = FULL`). Reads
//! have their own connections and never wait for the writer. The events of a task are numbered 1, 2, 3 and so on; an append
//! that would leave a gap is refused.
//!
//! After a failed write the journal refuses all further writes until it is opened again: the state of a disk after a failed
//! write is unknown, and a refusal is better than a promise that may not hold. If the disk was only full, the journal opens
//! itself again when space is free. Reads continue. A panic of the writer is such a failure too.
//!
//! The writer keeps an index of the running tasks in memory, so that a transaction needs few statements. Events are encoded
//! compactly, and the events of one request are one row.
//!
//! A task belongs to a caller. [`Journal::erase`] removes what a caller and the models wrote from it and leaves the figures, and
//! [`Journal::purge`] removes it from the files.
//!
//! This crate knows no graph, no state machine and no gRPC. It stores events and the few columns that lists of tasks need.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backup;
mod codec;
mod connection;
mod damage;
mod dir;
mod erase;
mod error;
mod hook;
mod index;
mod inspect;
mod journal;
mod migrate;
mod options;
mod panic;
mod read;
mod repair;
mod request;
mod rows;
mod schema;
mod summary;
#[cfg(test)]
mod tests;
mod write;
mod writer;

pub use damage::{Damage, DamagedTask, RowDamage};
pub use dir::{DirExposure, exposure, prepare};
pub use erase::Erasure;
pub use error::{Error, UnstorableReason};
pub use hook::{CommitHook, InjectedFault};
pub use inspect::{IntegrityReport, JournalStats, SetAsideTask, check, set_aside, stats};
pub use journal::Journal;
pub use options::{Options, Retention};
pub use repair::{RepairReport, repair};
pub use request::Acceptance;
pub use summary::{TaskFilter, TaskPage, TaskStatus, TaskSummary};

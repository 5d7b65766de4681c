//! Events on disk: what was acknowledged is never lost.
//!
//! A [`Journal`] is one directory with one SQLite database. Everybody writes through one task, which puts whatever
//! waits into one transaction and answers after the commit (group commit, WAL, `synchronous = FULL`); reads have
//! connections of their own and wait for no writer. The events of a task are numbered 1, 2, 3 and so on, and the
//! journal refuses whatever would leave a gap.
//!
//! After a failed write the journal refuses every further one until it is opened again: nobody can say what a disk
//! holds that failed once, and a refusal is better than a promise that may not hold. Where the disk was only full, the
//! journal opens itself again when there is room. Reading goes on.
//!
//! What the writer needs to know of running tasks it keeps in memory, so that a transaction is few statements: events are
//! packed, and those of one request are one row.
//!
//! This crate knows no graph, no state machine and no gRPC: it stores events and the few columns that lists need.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod codec;
mod dir;
mod error;
pub mod feedback;
mod index;
mod journal;
mod migrate;
mod pack;
mod read;
#[cfg(feature = "failpoints")]
mod rehearsal;
mod repair;
mod rows;
mod schema;
mod summary;
mod survey;
#[cfg(test)]
mod tests;
mod words;
mod write;
mod writer;

pub use error::Error;
pub use feedback::Feedback;
pub use journal::{Acceptance, Journal, Options, Retention};
#[cfg(feature = "failpoints")]
pub use rehearsal::{Death, Moment};
pub use repair::{Repair, repair};
pub use summary::{Filter, Page, Stage, Summary};
pub use survey::{Figures, Report, check, survey};

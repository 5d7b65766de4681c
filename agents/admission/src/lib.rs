//! What may begin, and in what order.
//!
//! A [`CallerLedger`] counts what the tasks of each caller take, and refuses one that its [`CallerQuota`] does not allow. A
//! [`PrioritySemaphore`] has the permits of a role: requests wait for one by their priority, and rise with the time that they wait.
//! This crate knows no actor, no journal and no role: callers are names, and requests are numbers.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod caller_ledger;
mod priority_semaphore;

pub use caller_ledger::{CallerLedger, CallerQuota, OpenTask, QuotaExcess, TaskPlace, midnight_before, tokens_of};
pub use priority_semaphore::{Permit, PermitRequest, PrioritySemaphore};

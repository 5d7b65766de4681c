//! Leases of an engine: an engine with a lease is not evicted.

use std::fmt;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use artel_engine::{EngineHandle, Error};
use artel_task::TaskId;
use artel_task::event::{Failure, FailureCode};
use ractor::RpcReplyPort;
use tokio::time::Instant;

use super::step_failures::LeaseOutcome;
use super::unavailable::EngineUnavailable;

/// An engine that may be used until this is dropped.
pub struct EngineLease {
    handle: EngineHandle,
    outcome: Mutex<LeaseOutcome>,
    /// Tells the host that the lease has ended, and how.
    release: Option<Box<dyn FnOnce(LeaseOutcome) + Send + Sync>>,
}

impl EngineLease {
    /// A lease that calls `release` when it is dropped.
    pub(super) fn new(handle: EngineHandle, release: impl FnOnce(LeaseOutcome) + Send + Sync + 'static) -> Self {
        Self { handle, outcome: Mutex::default(), release: Some(Box::new(release)) }
    }

    /// Tells the host, when the lease ends, what became of the work: an engine on which it fails again and again is loaded anew.
    /// Only failures of the model count, not those of a request, nor the end of the engine, which the host notices itself.
    pub fn note<T>(&self, result: &Result<T, Error>) {
        let outcome = match result {
            Ok(_) => LeaseOutcome::Served,
            Err(error @ Error::Model(_)) => LeaseOutcome::Failed(error.to_string()),
            Err(Error::Ended(_)) => LeaseOutcome::Interrupted,
            Err(_) => return,
        };
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    }
}

impl Deref for EngineLease {
    type Target = EngineHandle;

    fn deref(&self) -> &EngineHandle {
        &self.handle
    }
}

impl Drop for EngineLease {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            let outcome = self.outcome.get_mut().unwrap_or_else(PoisonError::into_inner);
            release(std::mem::take(outcome));
        }
    }
}

impl fmt::Debug for EngineLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineLease").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// A pending request for a lease.
pub(super) struct LeaseWaiter {
    /// The task that it is for.
    pub(super) task: Option<TaskId>,
    pub(super) reply: RpcReplyPort<Result<EngineLease, EngineUnavailable>>,
    /// When it arrived.
    pub(super) since: Instant,
}

/// The lease that a host answered with, or the failure of the step that asked for it.
pub fn lease_or_failure<E: fmt::Display>(
    answer: Result<Result<EngineLease, EngineUnavailable>, E>,
) -> Result<EngineLease, Failure> {
    match answer {
        Ok(Ok(lease)) => Ok(lease),
        Ok(Err(unavailable)) => Err(Failure::new(FailureCode::ModelUnavailable, unavailable.to_string())),
        Err(e) => Err(Failure::new(FailureCode::ModelUnavailable, format!("the engine's host has stopped: {e}"))),
    }
}

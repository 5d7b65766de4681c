//! Leases of an engine: an engine with a lease is not evicted.

use std::fmt;
use std::ops::Deref;

use artel_engine::EngineHandle;
use artel_task::event::{Failure, FailureCode};

use super::unavailable::EngineUnavailable;
use crate::completion::failure;

/// An engine that may be used until this is dropped.
pub(crate) struct EngineLease {
    handle: EngineHandle,
    /// Tells the host that the lease has ended.
    release: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl EngineLease {
    /// A lease that calls `release` when it is dropped.
    pub(super) fn new(handle: EngineHandle, release: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { handle, release: Some(Box::new(release)) }
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
            release();
        }
    }
}

impl fmt::Debug for EngineLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineLease").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// The lease that a host answered with, or the failure of the step that asked for it.
pub(crate) fn lease_or_failure<E: fmt::Display>(
    answer: Result<Result<EngineLease, EngineUnavailable>, E>,
) -> Result<EngineLease, Failure> {
    match answer {
        Ok(Ok(lease)) => Ok(lease),
        Ok(Err(unavailable)) => Err(failure(FailureCode::ModelUnavailable, unavailable.to_string())),
        Err(e) => Err(failure(FailureCode::ModelUnavailable, format!("the engine's host has stopped: {e}"))),
    }
}

//! Leases of an engine: an engine with a lease is not evicted.

use std::ops::Deref;

use artel_engine::EngineHandle;
use artel_task::event::{Failure, FailureCode};
use ractor::ActorRef;

use super::Message;
use crate::completion::failure;

/// An engine that may be used until this is dropped.
#[derive(Debug)]
pub(crate) struct EngineLease {
    handle: EngineHandle,
    _guard: LeaseGuard,
}

/// Why an engine could not be leased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EngineUnavailable {
    /// The model would not fit even if nothing else were loaded.
    InsufficientMemory(String),
    /// Any other reason.
    Failed(String),
}

impl EngineUnavailable {
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::InsufficientMemory(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// Tells the host on drop that a lease has ended.
#[derive(Debug)]
pub(crate) struct LeaseGuard(ActorRef<Message>);

impl EngineLease {
    pub(super) fn new(handle: EngineHandle, host: &ActorRef<Message>) -> Self {
        Self { handle, _guard: LeaseGuard(host.clone()) }
    }
}

impl Deref for EngineLease {
    type Target = EngineHandle;

    fn deref(&self) -> &EngineHandle {
        &self.handle
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        // A host that was restarted counts its leases anew.
        let _ = self.0.cast(Message::LeaseReleased);
    }
}

/// The lease that a host answered with, or the failure of the step that asked for it.
pub(crate) fn lease_or_failure<E: std::fmt::Display>(
    answer: Result<Result<EngineLease, EngineUnavailable>, E>,
) -> Result<EngineLease, Failure> {
    match answer {
        Ok(Ok(lease)) => Ok(lease),
        Ok(Err(unavailable)) => Err(failure(FailureCode::ModelUnavailable, unavailable.reason())),
        Err(e) => Err(failure(FailureCode::ModelUnavailable, format!("the engine's host has stopped: {e}"))),
    }
}

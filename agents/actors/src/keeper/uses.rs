//! The right to use an engine: while somebody has it, the engine is not unloaded to make room.

use std::ops::Deref;

use artel_engine::EngineHandle;
use artel_task::event::{FailureCode, Failure};
use ractor::ActorRef;

use super::Message;
use crate::report::failure;

/// An engine that may be used until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    handle: EngineHandle,
    _use: Use,
}

/// Why there is no engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hopeless {
    /// It would not fit even if nothing else were loaded.
    NoRoom(String),
    /// Anything else.
    Broken(String),
}

impl Hopeless {
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::NoRoom(reason) | Self::Broken(reason) => reason,
        }
    }
}

/// A use of an engine.
#[derive(Debug)]
pub(crate) struct Use(ActorRef<Message>);

impl Lease {
    pub(super) fn new(handle: EngineHandle, keeper: &ActorRef<Message>) -> Self {
        Self { handle, _use: Use(keeper.clone()) }
    }
}

impl Deref for Lease {
    type Target = EngineHandle;

    fn deref(&self) -> &EngineHandle {
        &self.handle
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        // A keeper that was replaced counts anew.
        let _ = self.0.cast(Message::Released);
    }
}

/// The engine that a keeper answered with, or why there is none.
pub(crate) fn unwrap<E: std::fmt::Display>(answer: Result<Result<Lease, Hopeless>, E>) -> Result<Lease, Failure> {
    match answer {
        Ok(Ok(lease)) => Ok(lease),
        Ok(Err(why)) => Err(failure(FailureCode::ModelUnavailable, why.reason())),
        Err(e) => Err(failure(FailureCode::ModelUnavailable, format!("the engine's keeper is gone: {e}"))),
    }
}

//! Calls to the engine of a host that need no step: those of the router, and texts that clients have computed as a whole.

use crate::engine_host::{self, EngineLease, EngineUnavailable};
use artel_engine::{EngineHandle, Error as EngineError};
use artel_task::event::{Failure, FailureCode};
use ractor::{ActorRef, call};

/// How often an engine is asked for the same: again only if it ended.
const MAX_ATTEMPTS: u32 = 2;

/// Why a call gave nothing.
pub enum EngineCallError {
    /// The engine cannot be had.
    Unavailable(EngineUnavailable),
    /// The host has stopped.
    Host(Failure),
    /// It refused, failed or ended.
    Engine(EngineError),
}

/// Does something with the engine of a host. Once more if the engine ends meanwhile, since the request is not at fault: a
/// decision that holds up others needs no retry of its own for an engine that was killed. How long an engine may take is known to
/// the daemon's watch over it, which ends one that hangs.
pub async fn on_engine<T, F: Future<Output = Result<T, EngineError>>>(
    host: &ActorRef<engine_host::Message>,
    compute: impl Fn(EngineHandle) -> F,
) -> Result<T, EngineCallError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let engine = lease(host).await?;
        let result = compute(EngineHandle::clone(&engine)).await;
        engine.note(&result);
        match result {
            Err(EngineError::Ended(reason)) if attempts < MAX_ATTEMPTS => {
                tracing::warn!(reason, "an engine ended while it computed; it is asked again");
            }
            result => return result.map_err(EngineCallError::Engine),
        }
    }
}

async fn lease(host: &ActorRef<engine_host::Message>) -> Result<EngineLease, EngineCallError> {
    match call!(host, engine_host::Message::Acquire) {
        Ok(answer) => answer.map_err(EngineCallError::Unavailable),
        Err(e) => {
            let message = format!("the engine's host has stopped: {e}");
            Err(EngineCallError::Host(Failure::new(FailureCode::ModelUnavailable, message)))
        }
    }
}

impl EngineCallError {
    /// As the failure of a decision; `what` could not be done.
    pub fn into_failure(self, what: &str) -> Failure {
        match self {
            Self::Unavailable(unavailable) => Failure::new(FailureCode::ModelUnavailable, unavailable.to_string()),
            Self::Host(failure) => failure,
            Self::Engine(error) => Failure::new(FailureCode::ModelUnavailable, format!("failed to {what}: {error}")),
        }
    }
}

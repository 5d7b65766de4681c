//! The engine that a host holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use artel_engine::{EngineHandle, WeakEngineHandle};
use ractor::ActorRef;
use tokio::time::Instant;

use super::message::Message;
use super::report::EngineState;
use super::unavailable::EngineUnavailable;
use crate::model_scheduler::Residency;

/// The engine of a host, and what becomes of it.
pub(super) enum HostedEngine {
    Unloaded,
    /// The loaded fraction, as the bits of an `f32`.
    Loading(Arc<AtomicU32>),
    Ready {
        handle: EngineHandle,
        since: Instant,
        /// The same as wall time, for reports.
        ready_since: SystemTime,
    },
    /// Its memory is not free yet; steps may run on it.
    Unloading(WeakEngineHandle),
    /// It exited unexpectedly or could not be loaded.
    Failed {
        reason: EngineUnavailable,
        /// When it may be loaded again; `None` if it was given up.
        retry_at: Option<Instant>,
    },
}

impl HostedEngine {
    /// The handle of an engine that is ready.
    pub(super) fn handle(&self) -> Option<&EngineHandle> {
        if let Self::Ready { handle, .. } = self { Some(handle) } else { None }
    }

    /// A reference to the engine if it is ready or being unloaded.
    pub(super) fn weak_handle(&self) -> Option<WeakEngineHandle> {
        match self {
            Self::Ready { handle, .. } => Some(handle.downgrade()),
            Self::Unloading(handle) => Some(handle.clone()),
            Self::Unloaded | Self::Loading(_) | Self::Failed { .. } => None,
        }
    }

    /// The wall time at which it became ready.
    pub(super) fn ready_since(&self) -> Option<SystemTime> {
        if let Self::Ready { ready_since, .. } = self { Some(*ready_since) } else { None }
    }

    /// Why it is not loaded for a new request: it was given up after so many failures, or its pause is not over.
    pub(super) fn refusal(&self, id: &str, failures: u32) -> Option<EngineUnavailable> {
        let Self::Failed { reason, retry_at } = self else { return None };
        let Some(retry_at) = retry_at else {
            return Some(EngineUnavailable::GivenUp { reason: Box::new(reason.clone()), failures });
        };
        let pause = retry_at.saturating_duration_since(Instant::now());
        (!pause.is_zero()).then(|| reason.during_pause(id, pause))
    }

    /// Whether its model is in memory.
    pub(super) fn residency(&self) -> Residency {
        match self {
            Self::Unloaded | Self::Failed { .. } => Residency::Unloaded,
            Self::Loading(_) | Self::Unloading(_) => Residency::Changing,
            Self::Ready { .. } => Residency::Loaded,
        }
    }

    /// Its state, as it is reported.
    pub(super) fn state(&self, is_draining: bool, downloaded_fraction: impl FnOnce() -> Option<f32>) -> EngineState {
        match self {
            Self::Unloaded => downloaded_fraction().map_or(EngineState::Unloaded, EngineState::Loading),
            Self::Loading(fraction) => EngineState::Loading(f32::from_bits(fraction.load(Ordering::Relaxed))),
            Self::Ready { .. } if is_draining => EngineState::Draining,
            Self::Ready { .. } => EngineState::Ready,
            Self::Unloading(_) => EngineState::Draining,
            Self::Failed { reason, retry_at } => {
                let retry_after = retry_at.map(|retry_at| retry_at.saturating_duration_since(Instant::now()));
                EngineState::Failed { reason: reason.to_string(), retry_after }
            }
        }
    }
}

/// Sends the host a message when the engine of this generation exits.
pub(super) fn watch_exit(me: &ActorRef<Message>, handle: &EngineHandle, generation: u64) {
    let (me, exited) = (me.clone(), handle.watch_end());
    tokio::spawn(async move {
        let reason = exited.await;
        // If the host has stopped, it has dropped the engine, which is why it exited.
        let _ = me.cast(Message::EngineExited { generation, reason });
    });
}

//! The messages to an engine host.

use artel_engine::{EngineHandle, LoadError, WeakEngineHandle};
use artel_task::TaskId;
use ractor::{ActorRef, RpcReplyPort};

use super::lease::EngineLease;
use super::placement_command::PlacementCommand;
use super::report::EngineReport;
use super::step_failures::LeaseOutcome;
use super::unavailable::EngineUnavailable;
use crate::model_scheduler;
use crate::model_workload::ModelWorkload;

/// The messages to an engine host.
pub enum Message {
    /// Answers with a lease once the engine is ready.
    Acquire(RpcReplyPort<Result<EngineLease, EngineUnavailable>>),
    /// As `Acquire`, for a step of this task.
    AcquireFor(TaskId, RpcReplyPort<Result<EngineLease, EngineUnavailable>>),
    /// As `Acquire`, but tries at once even if earlier loads failed.
    ForceAcquire(RpcReplyPort<Result<EngineLease, EngineUnavailable>>),
    /// A lease of the engine of this generation was dropped.
    LeaseReleased {
        /// The number of the load.
        generation: u64,
        /// The task that it was granted for.
        task: Option<TaskId>,
        /// What became of the work under it.
        outcome: LeaseOutcome,
    },
    /// Prefills these prefixes, now and whenever the engine has been loaded, and keeps no other adapters. The catalog may have
    /// changed.
    SetWorkload(Box<ModelWorkload>),
    /// The newest catalog does not have the model, which running tasks may still need.
    LeftCatalog,
    /// The model scheduler has decided.
    Placement(PlacementCommand),
    /// Unloads the engine: running steps finish, and the memory is free when the last one has ended.
    Unload(RpcReplyPort<Option<EngineHandle>>),
    /// Answers with the engine if it is ready or being unloaded, without a lease and without keeping it loaded.
    Engine(RpcReplyPort<Option<WeakEngineHandle>>),
    /// Answers with the engine's state.
    Report(RpcReplyPort<EngineReport>),
    /// The scheduler was restarted.
    SetScheduler(ActorRef<model_scheduler::Message>),
    /// The load has ended.
    Loaded(Result<EngineHandle, LoadError>),
    /// The engine of this generation has exited.
    EngineExited {
        /// The number of the load.
        generation: u64,
        /// Why it exited.
        reason: String,
    },
    /// The engine of this generation may have been idle for as long as its model is kept.
    IdleTimeOver(u64),
    /// Panics, as a bug would.
    #[cfg(feature = "test-panics")]
    Panic,
}

impl From<PlacementCommand> for Message {
    fn from(command: PlacementCommand) -> Self {
        Self::Placement(command)
    }
}

/// The way back, for a command that could not be sent.
impl TryFrom<Message> for PlacementCommand {
    type Error = ();

    fn try_from(message: Message) -> Result<Self, ()> {
        match message {
            Message::Placement(command) => Ok(command),
            _ => Err(()),
        }
    }
}

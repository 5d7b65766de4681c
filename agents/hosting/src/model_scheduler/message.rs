//! The messages to the model scheduler.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use artel_engine::LoadError;
use artel_placement::{Device, DeviceBytes, ModelFootprint};
use artel_roles::Model;
use ractor::{ActorId, DerivedActorRef, RpcReplyPort};
use tokio::time::Instant;

use crate::engine_host::PlacementCommand;
use crate::model_workload::MemoryDemand;

/// The messages to the model scheduler.
pub enum Message {
    /// The status of this host's engine.
    Status(EngineId, DerivedActorRef<PlacementCommand>, Box<EngineStatus>),
    /// A host has stopped, and its engine with it.
    HostStopped(EngineId, ActorId),
    /// An engine exited, failed to load or was unloaded on request, for this reason. Evictions are not reported.
    EngineUnloaded(EngineId, String),
    /// The estimated footprint of a model under this demand.
    Footprint {
        /// The engine.
        id: EngineId,
        /// The demand that the estimate is for.
        demand: MemoryDemand,
        /// The estimate, or why there is none.
        footprint: Box<Result<ModelFootprint, LoadError>>,
    },
    /// The current devices.
    Devices(Vec<Device>),
    /// A model has waited for as long as it may before another is swapped out.
    SwapDue,
    /// Answers with the loads and unloads and their reasons, the oldest first.
    Moves(RpcReplyPort<Vec<ModelMove>>),
    /// Panics, as a bug would.
    #[cfg(feature = "test-panics")]
    Panic,
}

/// The id of an engine: the name of its model, with a number if another version of the catalog has a model of that name.
pub type EngineId = Arc<str>;

/// The status of an engine and its queue, as its host reports it.
#[derive(Debug, Clone)]
pub struct EngineStatus {
    /// Its model.
    pub model: Arc<Model>,
    /// The memory that its roles need beside the model.
    pub demand: MemoryDemand,
    /// Whether it is in memory.
    pub residency: Residency,
    /// Steps that use it now.
    pub leases: u32,
    /// Steps that wait for it.
    pub waiting_steps: u32,
    /// Since when the first of them has waited.
    pub waiting_since: Option<Instant>,
    /// When it was last used or loaded.
    pub idle_since: Instant,
    /// How long the last load took.
    pub load_time: Duration,
    /// The memory it takes, by device.
    pub device_bytes: DeviceBytes,
    /// Whether it is kept for ever: never evicted.
    pub is_kept: bool,
    /// Whether the newest catalog does not have its model, which running tasks may still need.
    pub has_left_catalog: bool,
    /// The number of placements its host has received: a status sent before the latest one is stale.
    pub placement_version: u64,
}

/// Whether a model is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// It takes no memory.
    Unloaded,
    /// It is being loaded or unloaded.
    Changing,
    /// It serves requests.
    Loaded,
}

/// A load or an unload.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelMove {
    /// When it was decided.
    pub at: SystemTime,
    /// The model.
    pub model: String,
    /// Whether it was loaded; otherwise it was unloaded.
    pub loaded: bool,
    /// Why it was loaded or unloaded; for a load, also why on these devices.
    pub reason: String,
}

//! The arguments of an engine host.

use std::sync::Arc;

use artel_metrics::ModelMetrics;
use artel_roles::Model;
use artel_task::Clock;
use ractor::ActorRef;

use crate::loader::Loader;
use crate::model_scheduler::{self, EngineId};

/// The arguments of an engine host.
pub struct EngineHostArgs {
    /// The id of the engine.
    pub id: EngineId,
    /// Its model.
    pub model: Arc<Model>,
    /// Loads the model.
    pub loader: Arc<dyn Loader>,
    /// Decides where it is loaded.
    pub scheduler: ActorRef<model_scheduler::Message>,
    /// The wall time, for reports.
    pub clock: Clock,
    /// Counts its loads and ends.
    pub metrics: Arc<ModelMetrics>,
}

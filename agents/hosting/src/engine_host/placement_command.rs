//! What the model scheduler has an engine host do.

use artel_placement::Placement;

use super::unavailable::EngineUnavailable;

/// A decision of the model scheduler: all of an engine host's messages that it knows.
pub enum PlacementCommand {
    /// Loads the engine at this placement, or fails the waiting steps because there is none.
    Place(Result<Box<Placement>, EngineUnavailable>),
    /// Stops granting leases because another model needs the memory, or grants them again.
    SetDraining(bool),
    /// Unloads the engine for another model as soon as it has no leases.
    Evict,
}

//! What the scheduler knows of one model.

use std::time::Duration;

use artel_placement::{ModelFootprint, ModelQueue, Placement, ResidentModel};
use ractor::{ActorId, DerivedActorRef};

use super::message::{EngineId, EngineStatus, Residency};
use crate::engine_host::{EngineUnavailable, PlacementCommand};
use crate::lookahead::ModelLookahead;
use crate::model_workload::MemoryDemand;

/// A model whose engine host has reported its status.
pub(super) struct ScheduledModel {
    host: DerivedActorRef<PlacementCommand>,
    pub(super) status: EngineStatus,
    /// The footprint and the demand that it was estimated for.
    pub(super) footprint: Option<(MemoryDemand, ModelFootprint)>,
    /// The demand of the estimate in progress.
    pub(super) estimating: Option<MemoryDemand>,
    pub(super) draining: bool,
    /// Placements sent to the host.
    placement_version: u64,
}

impl ScheduledModel {
    pub(super) fn new(host: DerivedActorRef<PlacementCommand>, status: EngineStatus) -> Self {
        let placement_version = status.placement_version;
        Self { host, status, footprint: None, estimating: None, draining: false, placement_version }
    }

    /// Takes over a status. One sent before the host received its latest placement is stale in what depends on that.
    pub(super) fn update(&mut self, status: EngineStatus) {
        if status.placement_version < self.placement_version {
            let (residency, device_bytes) = (self.status.residency, std::mem::take(&mut self.status.device_bytes));
            self.status = EngineStatus { residency, device_bytes, ..status };
        } else {
            // A load may have measured what the footprint is estimated from.
            if status.residency == Residency::Loaded && self.status.residency != Residency::Loaded {
                self.footprint = None;
            }
            self.status = status;
        }
    }

    /// Whether this is its engine host.
    pub(super) fn is_hosted_by(&self, host: ActorId) -> bool {
        self.host.get_id() == host
    }

    /// Whether steps wait for it while it is not loaded.
    pub(super) fn is_wanted(&self) -> bool {
        self.status.residency == Residency::Unloaded && self.status.waiting_steps > 0
    }

    /// Whether its footprint is known under the current demand.
    pub(super) fn is_estimated(&self) -> bool {
        self.footprint.as_ref().is_some_and(|(demand, _)| *demand == self.status.demand)
    }

    /// Has the host load its model, or fail its waiting steps. Until the host answers, the model counts as loaded.
    pub(super) fn set_placement(&mut self, placement: Result<Placement, EngineUnavailable>) {
        self.placement_version += 1;
        self.status.residency = Residency::Changing;
        self.status.device_bytes = placement.as_ref().map(Placement::bytes).unwrap_or_default();
        self.send(PlacementCommand::Place(placement.map(Box::new)));
    }

    /// The steps that wait for it, if it can be placed.
    pub(super) fn queue(&self) -> Option<ModelQueue<'_>> {
        let need = &self.footprint.as_ref().filter(|_| self.is_wanted() && self.is_estimated())?.1;
        let oldest = self.status.waiting_since.map_or(Duration::ZERO, |since| since.elapsed());
        Some(ModelQueue { footprint: need, oldest_wait: oldest, load_time: self.status.load_time })
    }

    /// What it takes, unless it takes no memory.
    pub(super) fn loaded(&self, id: &EngineId, lookahead: &ModelLookahead) -> Option<ResidentModel> {
        let status = &self.status;
        (status.residency != Residency::Unloaded).then(|| ResidentModel {
            model: id.to_string(),
            bytes: status.device_bytes.clone(),
            is_busy: status.leases > 0 || status.residency == Residency::Changing,
            is_draining: self.draining,
            waiting_steps: status.waiting_steps,
            steps_until_use: lookahead.steps_until(&status.model),
            idle: status.idle_since.elapsed(),
            load_time: status.load_time,
        })
    }

    pub(super) fn send(&self, command: PlacementCommand) {
        // A host that has just stopped reports that itself.
        let _ = self.host.cast(command);
    }
}

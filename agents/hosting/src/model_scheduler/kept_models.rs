//! The models that are kept loaded for ever: other models get what they leave.

use std::collections::BTreeMap;

use artel_model::KeepLoaded;
use artel_placement::{Device, DeviceBytes, PlacementError};

use super::message::{EngineId, Residency};
use super::scheduled_model::ScheduledModel;

/// The loaded models with `keep: forever`, and the memory of each.
pub(super) struct KeptModels(Vec<(EngineId, DeviceBytes)>);

impl KeptModels {
    pub(super) fn of(models: &BTreeMap<EngineId, ScheduledModel>) -> Self {
        let is_kept = |model: &ScheduledModel| {
            model.status.residency == Residency::Loaded && model.status.model.keep == KeepLoaded::Forever
        };
        let kept = models.iter().filter(|(_, model)| is_kept(model));
        Self(kept.map(|(id, model)| (id.clone(), model.status.device_bytes.clone())).collect())
    }

    pub(super) fn contains(&self, id: &EngineId) -> bool {
        self.0.iter().any(|(kept, _)| kept == id)
    }

    /// The devices without what these models take of them.
    pub(super) fn leave(&self, devices: &[Device]) -> Vec<Device> {
        let taken = |device: &str| {
            let of_device = self.0.iter().filter_map(|(_, bytes)| bytes.get(device));
            of_device.fold(0, |sum: u64, bytes| sum.saturating_add(*bytes))
        };
        let left = |device: &Device| Device { free: device.free.saturating_sub(taken(&device.name)), ..device.clone() };
        devices.iter().map(left).collect()
    }

    /// Those with memory where another model has too little, each with its bytes there.
    pub(super) fn holders(&self, refusal: &PlacementError) -> Vec<(String, u64)> {
        let device = refusal.shortage().map(|shortage| shortage.device.as_str());
        let holds = |bytes: &DeviceBytes| match device {
            Some(device) => bytes.get(device).copied().unwrap_or_default(),
            None => bytes.values().copied().fold(0, u64::saturating_add),
        };
        let holders = self.0.iter().map(|(id, bytes)| (id.to_string(), holds(bytes)));
        holders.filter(|(_, bytes)| *bytes > 0).collect()
    }
}

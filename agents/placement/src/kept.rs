//! Models that stay loaded for ever: others get what they leave.

use std::time::Duration;

use artel_model::format_bytes;

use crate::device::{Device, DeviceBytes, allocated, demand};
use crate::error::PlacementError;
use crate::evict::{EvictionPlan, ResidentModel, plan_eviction};
use crate::footprint::ModelFootprint;
use crate::phrase::list;
use crate::place::place;

/// A model that is never evicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptModel {
    /// Its name.
    pub model: String,
    /// The bytes that it takes by device, the machine's memory included.
    pub bytes: DeviceBytes,
}

/// Why a model that would fit alone does not fit beside models that are never evicted.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptOut {
    /// What is missing beside them.
    pub refusal: PlacementError,
    /// Those that hold memory where the model would have it, each with that memory.
    pub holders: Vec<KeptModel>,
    /// The fewest without which it fits.
    pub unload: Vec<String>,
}

/// The devices with what these models leave.
pub fn left_by(kept: &[KeptModel], devices: &[Device]) -> Vec<Device> {
    let mut taken = DeviceBytes::new();
    for (device, bytes) in kept.iter().flat_map(|model| &model.bytes) {
        let sum = taken.entry(device.clone()).or_default();
        *sum = sum.saturating_add(*bytes);
    }
    allocated(devices, &taken)
}

impl KeptOut {
    /// Why a model is refused beside these; none if it would not fit without them either. `refusal` is that of the model on what
    /// they leave of the devices.
    pub fn of(
        footprint: &ModelFootprint,
        devices: &[Device],
        kept: &[KeptModel],
        refusal: PlacementError,
    ) -> Option<Self> {
        let alone = demand(&place(footprint, devices).ok()?.bytes(), devices);
        let left = left_by(kept, devices);
        let is_short: Vec<bool> = left.iter().zip(&alone).map(|(device, needed)| *needed > device.free).collect();
        let held = |model: &KeptModel| -> DeviceBytes {
            // The memory of an integrated GPU is that of the machine, which may be what is short.
            let bytes = demand(&model.bytes, devices);
            let short = devices.iter().zip(bytes).zip(&is_short).filter(|((_, bytes), short)| **short && *bytes > 0);
            short.map(|((device, bytes), _)| (device.name.clone(), bytes)).collect()
        };
        let unload = fewest_without(footprint, devices, kept);
        let holders: Vec<KeptModel> = kept
            .iter()
            .map(|model| KeptModel { model: model.model.clone(), bytes: held(model) })
            .filter(|holder| !holder.bytes.is_empty() || unload.contains(&holder.model))
            .collect();
        Some(Self { refusal, holders, unload })
    }

    /// The models that hold the memory, as the subject of a sentence in the plural or in the singular: `one (4 GB of CUDA0) has`.
    pub fn holders_have(&self) -> String {
        let each: Vec<String> = self.holders.iter().map(KeptModel::with_bytes).collect();
        format!("{} {}", each.join(", "), if each.len() == 1 { "has" } else { "have" })
    }
}

/// The reason without the remedies.
impl std::fmt::Display for KeptOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {} `keep: forever`: it fits without {}", self.refusal, self.holders_have(), list(&self.unload))
    }
}

impl KeptModel {
    /// `one (4 GB of CUDA0)`.
    fn with_bytes(&self) -> String {
        if self.bytes.is_empty() {
            return self.model.clone();
        }
        let each = self.bytes.iter().map(|(device, bytes)| format!("{} of {device}", format_bytes(*bytes)));
        format!("{} ({})", self.model, list(&each.collect::<Vec<_>>()))
    }
}

/// The fewest of these models without which another fits.
fn fewest_without(footprint: &ModelFootprint, devices: &[Device], kept: &[KeptModel]) -> Vec<String> {
    let resident = |model: &KeptModel| ResidentModel {
        model: model.model.clone(),
        bytes: model.bytes.clone(),
        is_busy: false,
        is_draining: false,
        waiting_steps: 0,
        steps_until_use: None,
        idle: Duration::ZERO,
        load_time: Duration::ZERO,
    };
    let resident: Vec<ResidentModel> = kept.iter().map(resident).collect();
    match plan_eviction(footprint, devices, &resident) {
        EvictionPlan::Evict { victims, .. } => victims,
        EvictionPlan::Fits(_) | EvictionPlan::Wait { .. } | EvictionPlan::Impossible(_) => {
            kept.iter().map(|model| model.model.clone()).collect()
        }
    }
}

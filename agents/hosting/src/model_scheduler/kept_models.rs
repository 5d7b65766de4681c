//! The models that are kept loaded for ever: other models get what they leave.

use std::collections::BTreeMap;

use artel_placement::KeptModel;

use super::message::{EngineId, Residency};
use super::scheduled_model::ScheduledModel;

/// The loaded models that are kept for ever.
pub(super) fn kept_models(models: &BTreeMap<EngineId, ScheduledModel>) -> Vec<KeptModel> {
    let kept = models.iter().filter(|(_, model)| is_kept(model, models));
    kept.map(|(id, model)| KeptModel { model: id.to_string(), bytes: model.status.device_bytes.clone() }).collect()
}

/// Whether a model is loaded and kept for ever. While steps wait for it as an earlier catalog has it, it takes turns with that.
pub(super) fn is_kept(model: &ScheduledModel, models: &BTreeMap<EngineId, ScheduledModel>) -> bool {
    let is_former = |other: &ScheduledModel| {
        other.status.has_left_catalog && other.status.model.name == model.status.model.name && other.is_wanted()
    };
    model.status.residency == Residency::Loaded && model.status.is_kept && !models.values().any(is_former)
}

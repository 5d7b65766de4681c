//! Computes placements and converts them to messages.

use std::collections::BTreeMap;

use artel_actors::{EngineReport, MemoryDemand, ModelMove};
use artel_placement::{
    Device, KeptModel, ModelFootprint, Placement, PlacementError, PlacementPart, UnplacedModel, plan,
};
use artel_proto::v1;
use tonic::Status;

use super::engine::device_split;
use crate::machine::DeviceStatus;
use crate::server_paths::ServerPaths;
use crate::state::ServiceState;
use crate::value::system_time;

impl ServiceState {
    /// The placement of these models on devices with no others but those that are kept for ever. Without names: of all models of the
    /// catalog; loaded ones keep their devices.
    pub(super) async fn placement(&self, names: &[String]) -> Result<v1::Placement, Status> {
        let (catalog, reports) = (self.runtime.catalog(), self.reports().await?);
        let engines = catalog.engines();
        if let Some(name) = names.iter().find(|name| !engines.contains_key(*name)) {
            return Err(self.status_of(artel_actors::Error::NoModel { name: name.clone() }));
        }
        let kept = kept_models(&reports, names);
        let (mut needs, mut unplaced) = (Vec::new(), Vec::new());
        let is_meant = |name: &String| match names.is_empty() {
            true => kept.iter().all(|kept| kept.model != *name),
            false => names.contains(name),
        };
        for (name, model) in engines.into_iter().filter(|(name, _)| is_meant(name)) {
            match self.machine.estimate_footprint(&model, MemoryDemand::of(&catalog, &model, &self.models)).await {
                Ok(need) => needs.push(ModelFootprint { model: name, ..need }),
                Err(error) => {
                    let reason = self.paths.hide(&error.to_string());
                    unplaced.push(v1::UnplacedModel { model: name, reason, ..v1::UnplacedModel::default() });
                }
            }
        }
        let statuses = self.machine.device_statuses(&self.taken().await?).await;
        let devices: Vec<Device> = statuses.iter().filter_map(DeviceStatus::to_placeable).collect();
        let plan = plan(&needs, &devices, &kept);
        let is_loaded = |name: &str| reports.iter().any(|report| report.id == name && report.stats.is_some());
        let loaded_places = if names.is_empty() { loaded_placements(&reports) } else { BTreeMap::new() };
        unplaced
            .extend(plan.unplaced.iter().filter(|model| !loaded_places.contains_key(&model.model)).map(unplaced_model));
        let mut placed: Vec<v1::PlacedModel> =
            loaded_places.values().map(|placement| placed_model(placement, is_loaded(&placement.model))).collect();
        let others = plan.placed.iter().filter(|placement| !loaded_places.contains_key(&placement.model));
        placed.extend(others.map(|placement| placed_model(placement, is_loaded(&placement.model))));
        let changes = self.runtime.model_moves().await.map_err(|e| self.status_of(e))?;
        Ok(v1::Placement {
            placed,
            unplaced,
            catalog_version: catalog.version().as_str().to_owned(),
            changes: changes.into_iter().map(|moved| change(moved, &self.paths)).collect(),
        })
    }
}

/// The loaded engines other than these that are kept for ever.
fn kept_models(reports: &[EngineReport], but: &[String]) -> Vec<KeptModel> {
    let is_kept = |report: &&EngineReport| report.is_kept && report.placement.is_some() && !but.contains(&report.id);
    let kept = |report: &EngineReport| KeptModel { model: report.id.clone(), bytes: report.device_bytes.clone() };
    reports.iter().filter(is_kept).map(kept).collect()
}

/// The placements of engines by their ids.
fn loaded_placements(reports: &[EngineReport]) -> BTreeMap<String, Placement> {
    let placement = |report: &EngineReport| Some((report.id.clone(), report.placement.clone()?));
    reports.iter().filter_map(placement).collect()
}

fn placed_model(placement: &Placement, loaded: bool) -> v1::PlacedModel {
    let (_, split, _) = device_split(placement);
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let share_of_host = placement.host_share();
    let parts = placement.parts.iter().zip(placement.fractions());
    let part = |(part, share): (&PlacementPart, f64)| v1::DevicePart {
        device: part.device.clone(),
        share: share * (1.0 - share_of_host),
        bytes: part.bytes(),
        layers: number(part.layers),
        weight_bytes: part.weight_bytes,
        cache_bytes: part.kv_bytes,
    };
    let mut parts: Vec<v1::DevicePart> = parts.map(part).collect();
    parts.extend(placement.host.iter().map(|host| v1::DevicePart {
        device: host.device.clone(),
        share: share_of_host,
        bytes: host.bytes(),
        layers: number(host.layers),
        weight_bytes: host.weight_bytes,
        cache_bytes: host.kv_bytes,
    }));
    v1::PlacedModel {
        model: placement.model.clone(),
        split: split.into(),
        parts,
        reason: placement.reason.clone(),
        loaded,
        gpu_layers: placement.gpu_layers,
        cpu_expert_layers: placement.cpu_expert_layers,
        context_tokens: placement.context_tokens,
        sequences: placement.sequences,
    }
}

fn unplaced_model(unplaced: &UnplacedModel) -> v1::UnplacedModel {
    let shortage = unplaced.error.shortage();
    v1::UnplacedModel {
        model: unplaced.model.clone(),
        reason: unplaced.reason.clone(),
        device: shortage.map(|shortage| shortage.device.clone()).unwrap_or_default(),
        missing_bytes: shortage.map_or(0, artel_placement::MemoryShortage::missing),
        remedies: PlacementError::remedies(&unplaced.error).iter().map(ToString::to_string).collect(),
    }
}

fn change(change: ModelMove, paths: &ServerPaths) -> v1::PlacementChange {
    v1::PlacementChange {
        time: Some(system_time(change.at)),
        model: change.model,
        loaded: change.loaded,
        reason: paths.hide(&change.reason),
    }
}

//! Placements for one model and for all models of a catalog.

use std::cmp::Reverse;

use crate::device::{Device, allocated};
use crate::error::{PlacementError, list};
use crate::fit::fit;
use crate::footprint::{DeviceChoice, ModelFootprint};
use crate::placement::Placement;
use crate::remedy;

/// The placements of all models that fit side by side, and the reasons why the others do not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlacementPlan {
    /// The models with a placement, in the order in which they were placed.
    pub placed: Vec<Placement>,
    /// The models without one.
    pub unplaced: Vec<UnplacedModel>,
}

/// A model that does not fit beside the others.
#[derive(Debug, Clone, PartialEq)]
pub struct UnplacedModel {
    /// The model.
    pub model: String,
    /// Why, in words and figures.
    pub reason: String,
    /// What is missing, and what would help.
    pub error: PlacementError,
    /// Its placement without the others: then it can be swapped with them. None if it fits nowhere.
    pub alone: Option<Placement>,
}

/// Finds the placement of a model on devices without other models of ours.
///
/// Pins are obeyed. Without one, the first of these that fits: one GPU, the one with the least memory left over; the fewest
/// GPUs that fit together, split by layers; an integrated GPU; the CPU; devices of other machines, alone and then together, if
/// necessary with the GPUs of this machine. The network comes last.
pub fn place(footprint: &ModelFootprint, devices: &[Device]) -> Result<Placement, PlacementError> {
    fit(footprint, devices).map_err(|error| match error {
        PlacementError::InsufficientMemory { model, shortage, .. } => {
            PlacementError::InsufficientMemory { remedies: remedy::remedies(footprint, devices), model, shortage }
        }
        other => other,
    })
}

/// Places all models side by side on empty devices: pinned ones first, since they have no choice, and the biggest first within
/// each group, since small ones still fit last.
pub fn plan(footprints: &[ModelFootprint], devices: &[Device]) -> PlacementPlan {
    let mut order: Vec<&ModelFootprint> = footprints.iter().collect();
    order.sort_by_key(|footprint| {
        (footprint.devices == DeviceChoice::Auto, Reverse(footprint.total_bytes()), footprint.model.clone())
    });
    let mut plan = PlacementPlan::default();
    let mut remaining = devices.to_vec();
    for footprint in order {
        match place(footprint, &remaining) {
            Ok(placement) => {
                remaining = allocated(&remaining, &placement.bytes());
                plan.placed.push(placement);
            }
            Err(error) => {
                let unplaced = unplaced(footprint, devices, error, &plan.placed);
                plan.unplaced.push(unplaced);
            }
        }
    }
    plan
}

fn unplaced(
    footprint: &ModelFootprint,
    devices: &[Device],
    beside: PlacementError,
    placed: &[Placement],
) -> UnplacedModel {
    let model = footprint.model.clone();
    match fit(footprint, devices) {
        // The shortage beside the others is irrelevant then.
        Err(_) => {
            let error = place(footprint, devices).err().unwrap_or(beside);
            UnplacedModel { model, reason: error.to_string(), error, alone: None }
        }
        Ok(alone) => {
            let on = alone.devices();
            let others =
                placed.iter().filter(|placement| placement.bytes().keys().any(|device| on.contains(&device.as_str())));
            let others: Vec<&str> = others.map(|placement| placement.model.as_str()).collect();
            let reason = format!(
                "{beside} beside {}; it would fit on {} alone, and is swapped with them",
                list(&others),
                list(&on)
            );
            UnplacedModel { model, reason, error: beside, alone: Some(alone) }
        }
    }
}

//! Placements for one model and for all models of a catalog.

use std::cmp::Reverse;

use crate::device::{Device, allocated};
use crate::error::{PlacementError, list};
use crate::fit::fit;
use crate::footprint::{DeviceChoice, ModelFootprint};
use crate::limits::FitLimits;
use crate::placement::Placement;
use crate::remedy;
use crate::space::{Space, fit_within};

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
/// Pins are obeyed. Without one, the first of these that fits:
///
/// 1. one GPU, the one with the least memory left over; the fewest GPUs that fit together, split by layers;
/// 2. these with a smaller cache, if the model may have one: fewer sequences, then a shorter context;
/// 3. GPUs, with the experts of as few layers as needed on the CPU;
/// 4. GPUs with as many of the last layers as fit, and the others on the CPU;
/// 5. an integrated GPU; the CPU; devices of other machines, alone and then together, if necessary with the GPUs of this machine.
///    The network comes last;
/// 6. the same with a smaller cache; at last GPUs and devices of other machines with the CPU.
pub fn place(footprint: &ModelFootprint, devices: &[Device]) -> Result<Placement, PlacementError> {
    place_within(footprint, &Space { all: devices, free: devices })
}

/// As [`place`], beside other models.
pub(crate) fn place_within(footprint: &ModelFootprint, space: &Space<'_>) -> Result<Placement, PlacementError> {
    fit_within(footprint, space).map_err(|error| match error {
        PlacementError::InsufficientMemory { model, shortage, cache, .. } => {
            let remedies = remedy::remedies(footprint, space);
            PlacementError::InsufficientMemory { model, shortage, cache, remedies }
        }
        other => other,
    })
}

/// Places all models side by side on empty devices: pinned ones first, since they have no choice, and the biggest first within
/// each group, since small ones still fit last. A model that others leave only a part of a device, though it would fit there
/// alone, comes after all: a smaller one may fit there whole.
pub fn plan(footprints: &[ModelFootprint], devices: &[Device]) -> PlacementPlan {
    let mut order: Vec<&ModelFootprint> = footprints.iter().collect();
    order.sort_by_key(|footprint| {
        (footprint.devices == DeviceChoice::Auto, Reverse(footprint.total_bytes()), footprint.model.clone())
    });
    let mut plan = PlacementPlan::default();
    let mut remaining = devices.to_vec();
    let mut postponed = Vec::new();
    for footprint in order {
        let placed = place_within(footprint, &Space { all: devices, free: &remaining });
        if placed.as_ref().is_ok_and(Placement::is_mixed) && is_whole_alone(footprint, devices) {
            postponed.push(footprint);
            continue;
        }
        plan.add(footprint, placed, devices, &mut remaining);
    }
    for footprint in postponed {
        let placed = place_within(footprint, &Space { all: devices, free: &remaining });
        plan.add(footprint, placed, devices, &mut remaining);
    }
    plan
}

fn is_whole_alone(footprint: &ModelFootprint, devices: &[Device]) -> bool {
    fit(footprint, devices, FitLimits::alone(footprint)).is_ok_and(|alone| !alone.is_mixed())
}

impl PlacementPlan {
    fn add(
        &mut self,
        footprint: &ModelFootprint,
        placed: Result<Placement, PlacementError>,
        devices: &[Device],
        remaining: &mut Vec<Device>,
    ) {
        match placed {
            Ok(placement) => {
                *remaining = allocated(remaining, &placement.bytes());
                self.placed.push(placement);
            }
            Err(error) => self.unplaced.push(unplaced(footprint, devices, error, &self.placed)),
        }
    }
}

fn unplaced(
    footprint: &ModelFootprint,
    devices: &[Device],
    beside: PlacementError,
    placed: &[Placement],
) -> UnplacedModel {
    let model = footprint.model.clone();
    match fit(footprint, devices, FitLimits::alone(footprint)) {
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

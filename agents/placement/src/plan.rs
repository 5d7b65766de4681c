//! Placements for all models of a catalog.

use std::cmp::Reverse;

use crate::device::{Device, allocated};
use crate::error::PlacementError;
use crate::fit::fit;
use crate::footprint::{DeviceChoice, ModelFootprint};
use crate::kept::{KeptModel, KeptOut, left_by};
use crate::limits::FitLimits;
use crate::place::{place, place_within};
use crate::placement::Placement;
use crate::space::Space;

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
    /// Its placement without the others: then it can be swapped with them. None if it fits nowhere, or if others that are never
    /// evicted leave too little.
    pub alone: Option<Placement>,
    /// The others that are never evicted, if it would fit without them alone.
    pub kept_out: Option<KeptOut>,
}

/// Places all models side by side on devices that hold none but `kept`, which are never evicted.
///
/// Models that are kept come first, since they stay when others are swapped; then pinned ones, since they have no choice; and the
/// biggest first within each group, since small ones still fit last. A model that others leave only a part of a device, though it
/// would fit there alone, comes after all: a smaller one may fit there whole.
pub fn plan(footprints: &[ModelFootprint], devices: &[Device], kept: &[KeptModel]) -> PlacementPlan {
    let mut order: Vec<&ModelFootprint> = footprints.iter().collect();
    order.sort_by_key(|footprint| {
        let is_auto = footprint.devices == DeviceChoice::Auto;
        (!footprint.is_kept, is_auto, Reverse(footprint.total_bytes()), footprint.model.clone())
    });
    let left = left_by(kept, devices);
    let mut planner =
        Planner { devices, kept: kept.to_vec(), remaining: left.clone(), left, plan: PlacementPlan::default() };
    let mut postponed = Vec::new();
    for footprint in order {
        let placed = planner.place(footprint);
        if placed.as_ref().is_ok_and(Placement::is_mixed) && is_whole_alone(footprint, &planner.left) {
            postponed.push(footprint);
            continue;
        }
        planner.add(footprint, placed);
    }
    for footprint in postponed {
        let placed = planner.place(footprint);
        planner.add(footprint, placed);
    }
    planner.plan
}

fn is_whole_alone(footprint: &ModelFootprint, devices: &[Device]) -> bool {
    fit(footprint, devices, FitLimits::alone(footprint)).is_ok_and(|alone| !alone.is_mixed())
}

/// A plan in the making.
struct Planner<'a> {
    devices: &'a [Device],
    /// The models that are never evicted.
    kept: Vec<KeptModel>,
    /// The devices with what these leave.
    left: Vec<Device>,
    /// The devices with what all placed models leave.
    remaining: Vec<Device>,
    plan: PlacementPlan,
}

impl Planner<'_> {
    fn place(&self, footprint: &ModelFootprint) -> Result<Placement, PlacementError> {
        place_within(footprint, &Space { all: &self.left, free: &self.remaining })
    }

    fn add(&mut self, footprint: &ModelFootprint, placed: Result<Placement, PlacementError>) {
        match placed {
            Ok(placement) => {
                self.remaining = allocated(&self.remaining, &placement.bytes());
                if footprint.is_kept {
                    self.left = allocated(&self.left, &placement.bytes());
                    self.kept.push(KeptModel { model: placement.model.clone(), bytes: placement.bytes() });
                }
                self.plan.placed.push(placement);
            }
            Err(error) => self.plan.unplaced.push(self.unplaced(footprint, error)),
        }
    }

    fn unplaced(&self, footprint: &ModelFootprint, beside: PlacementError) -> UnplacedModel {
        let model = footprint.model.clone();
        if let Ok(alone) = fit(footprint, &self.left, FitLimits::alone(footprint)) {
            let on = alone.devices();
            let is_kept = |placement: &Placement| self.kept.iter().any(|kept| kept.model == placement.model);
            let holding = |on: &[&str]| -> Vec<&str> {
                let holds = |placement: &&Placement| {
                    let bytes = placement.bytes();
                    !is_kept(placement) && on.iter().any(|device| bytes.get(*device).is_some_and(|bytes| *bytes > 0))
                };
                self.plan.placed.iter().filter(holds).map(|placement| placement.model.as_str()).collect()
            };
            let short: Vec<&str> = beside.shortage().iter().map(|shortage| shortage.device.as_str()).collect();
            // What is short may be left so by models that stay.
            let others = Some(holding(&short)).filter(|others| !others.is_empty()).unwrap_or_else(|| holding(&on));
            let reason = beside.beside(&others, &on);
            return UnplacedModel { model, reason, error: beside, alone: Some(alone), kept_out: None };
        }
        // What other models take is irrelevant then.
        let error = place(footprint, &self.left).err().unwrap_or(beside);
        match KeptOut::of(footprint, self.devices, &self.kept, error.clone()) {
            Some(kept_out) => {
                UnplacedModel { model, reason: kept_out.to_string(), error, alone: None, kept_out: Some(kept_out) }
            }
            None => {
                let error = place(footprint, self.devices).err().unwrap_or(error);
                UnplacedModel { model, reason: error.to_string(), error, alone: None, kept_out: None }
            }
        }
    }
}

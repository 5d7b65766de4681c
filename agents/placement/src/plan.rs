//! A place for every model of a catalog.

use std::cmp::Reverse;

use crate::device::{Device, less};
use crate::need::{Devices, Need};
use crate::place::{Place, fit, place};
use crate::refusal::Refusal;
use crate::size::list;

/// Where all models go that have room side by side, and why the others have none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Those that have a place, in the order in which they got it.
    pub placed: Vec<Place>,
    /// Those that have none.
    pub unplaced: Vec<Unplaced>,
}

/// A model without a place beside the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Unplaced {
    /// The model.
    pub model: String,
    /// Why, in words and figures.
    pub reason: String,
    /// What is missing, and what would help.
    pub refusal: Refusal,
    /// Where it would be without the others: then it can take turns with them. None if it fits nowhere.
    pub alone: Option<Place>,
}

/// Finds places for all of them side by side on empty devices: those that are pinned first, since they have no choice, and the
/// biggest first among each, since the small ones find room last.
pub fn plan(needs: &[Need], devices: &[Device]) -> Plan {
    let mut order: Vec<&Need> = needs.iter().collect();
    order.sort_by_key(|need| (need.devices == Devices::Auto, Reverse(need.total()), need.model.clone()));
    let mut plan = Plan::default();
    let mut left = devices.to_vec();
    for need in order {
        match place(need, &left) {
            Ok(place) => {
                left = less(&left, &place.bytes());
                plan.placed.push(place);
            }
            Err(refusal) => {
                let unplaced = unplaced(need, devices, refusal, &plan.placed);
                plan.unplaced.push(unplaced);
            }
        }
    }
    plan
}

fn unplaced(need: &Need, devices: &[Device], beside: Refusal, placed: &[Place]) -> Unplaced {
    let model = need.model.clone();
    match fit(need, devices) {
        // What is missing beside the others is of no interest then.
        Err(_) => {
            let refusal = place(need, devices).err().unwrap_or(beside);
            Unplaced { model, reason: refusal.to_string(), refusal, alone: None }
        }
        Ok(alone) => {
            let on = alone.devices();
            let there = placed.iter().filter(|place| place.bytes().keys().any(|device| on.contains(&device.as_str())));
            let there: Vec<&str> = there.map(|place| place.model.as_str()).collect();
            let reason = format!(
                "{beside} beside {}; it would fit on {} alone, and takes turns with them",
                list(&there),
                list(&on)
            );
            Unplaced { model, reason, refusal: beside, alone: Some(alone) }
        }
    }
}

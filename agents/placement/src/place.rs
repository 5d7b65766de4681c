//! The placement of one model, or what would help.

use crate::device::Device;
use crate::error::PlacementError;
use crate::footprint::ModelFootprint;
use crate::placement::Placement;
use crate::remedy;
use crate::space::{Space, fit_within};

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
    fit_within(footprint, space).map_err(|error| error.with_remedies(|| remedy::remedies(footprint, space)))
}

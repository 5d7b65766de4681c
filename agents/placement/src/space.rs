//! The placement of a model beside others.

use crate::device::Device;
use crate::error::PlacementError;
use crate::fit::fit;
use crate::footprint::ModelFootprint;
use crate::limits::FitLimits;
use crate::placement::Placement;

/// Devices beside other models of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Space<'a> {
    /// The devices without them.
    pub(crate) all: &'a [Device],
    /// The devices with what they leave.
    pub(crate) free: &'a [Device],
}

/// The placement beside other models. Its error names no remedies.
pub(crate) fn fit_within(footprint: &ModelFootprint, space: &Space<'_>) -> Result<Placement, PlacementError> {
    let alone = fit(footprint, space.all, FitLimits::alone(footprint))?;
    if space.all == space.free {
        return Ok(alone);
    }
    fit(footprint, space.free, FitLimits::beside_others(footprint, &alone))
}

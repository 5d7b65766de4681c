//! Which model is placed on which devices, which models are evicted to free memory for it, and when to swap.
//!
//! A [`ModelFootprint`] is the memory of one model, layer by layer; a [`Device`] has memory to offer. [`place`] finds a
//! [`Placement`] for one model, or a [`PlacementError`] that says how much is missing where and what would help; [`plan`] places
//! the models of a whole catalog. [`plan_eviction`] frees memory held by [`ResidentModel`]s, and [`decide_swap`] decides when to
//! swap models for waiting steps.
//!
//! Everything here is a function of its arguments: no IO, no clock, no async. It does not know llama.cpp's API, files, roles or
//! tasks; sizes are bytes, and models and devices are names.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod device;
mod error;
mod evict;
mod footprint;
mod layout;
mod placement;
mod plan;
mod remedy;
mod size;
mod swap;

pub use device::{Device, DeviceBytes, DeviceKind};
pub use error::{MemoryShortage, PlacementError};
pub use evict::{EvictionPlan, ResidentModel, plan_eviction};
pub use footprint::{DeviceChoice, KvCacheType, LayerFootprint, ModelFootprint, SplitMode};
pub use placement::{Placement, PlacementPart, place};
pub use plan::{PlacementPlan, UnplacedModel, plan};
pub use remedy::{Remedy, SettingChange};
pub use size::format_bytes;
pub use swap::{ModelQueue, SwapDecision, decide_swap};

#[cfg(test)]
mod tests;

//! Which model is placed on which devices, which models are evicted to free memory for it, and when to swap.
//!
//! A [`ModelFootprint`] is the memory of one model, layer by layer; a [`Device`] has memory to offer. [`place`] finds a
//! [`Placement`] for one model, or a [`PlacementError`] that says how much is missing where and what would help; [`plan`] places
//! the models of a whole catalog, beside [`KeptModel`]s that are never evicted. [`plan_eviction`] frees memory held by
//! [`ResidentModel`]s, and [`decide_swap`] decides when to swap models for waiting steps.
//!
//! Everything here is a function of its arguments: no IO, no clock, no async. It does not know llama.cpp's API, files, roles or
//! tasks; sizes are bytes, and models and devices are names.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cache;
mod cache_shapes;
mod device;
mod error;
mod evict;
mod fit;
mod footprint;
mod kept;
mod layout;
mod limits;
mod phrase;
mod place;
mod placement;
mod plan;
mod quantization;
mod reason;
mod remedy;
mod search;
mod setting_change;
mod space;
mod swap;

pub use artel_model::{CacheSize, DeviceKind, ExpertPlacement, GpuLayers, KvCacheType, SplitMode};
pub use cache::CacheShape;
pub use device::{Device, DeviceBytes};
pub use error::{MemoryShortage, PlacementError};
pub use evict::{EvictionPlan, ResidentModel, plan_eviction};
pub use footprint::{DeviceChoice, LayerFootprint, ModelFootprint, PROCESS_BYTES};
pub use kept::{KeptModel, KeptOut, left_by};
pub use place::place;
pub use placement::{HostPart, Placement, PlacementPart};
pub use plan::{PlacementPlan, UnplacedModel, plan};
pub use setting_change::{CacheValue, Remedy, SettingChange};
pub use swap::{ModelQueue, SwapDecision, decide_swap};

#[cfg(test)]
mod tests;

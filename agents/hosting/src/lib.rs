//! The engines of models: which models are loaded, on which devices, and which are evicted for others.
//!
//! An [engine host](engine_host) loads the engine of one model where the [model scheduler](model_scheduler) places it, leases
//! it to steps, and loads it again after it has exited. What the scheduler decides follows from `artel_placement`, and from a
//! [lookahead](ModelLookahead) of the models that running tasks will need. Engines come from a [`Loader`]; requests to them
//! are made by [`prompt`].
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod engine_call;
pub mod engine_host;
mod loader;
mod lookahead;
pub mod model_scheduler;
mod model_workload;
pub mod prompt;
#[cfg(test)]
mod tests;

pub use loader::{LoadProgress, Loader, zero_footprint};
pub use lookahead::{LOOKAHEAD_STEPS, LookaheadGuard, ModelLookahead};
pub use model_workload::{MemoryDemand, ModelWorkload};

//! The tests of the engine on real models, in one binary.
#![allow(clippy::unwrap_used, missing_docs)]

mod adapters;
mod demo_models;
mod loss;
mod memory_estimate;
#[cfg(target_os = "linux")]
mod memory_leak;
mod model;
mod rank_pooling;
mod sampling;
#[cfg(feature = "vulkan")]
mod vulkan;

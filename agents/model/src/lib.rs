//! Words that several crates say of models, devices and requests: the type of a KV cache, the kind of a device, how tokens are
//! sampled.
//!
//! Each is a plain value with the spelling that YAML and the specs of engines have for it. What a word means, how YAML is read
//! and what llama.cpp calls it, this crate does not know: it depends on nothing of ours, so that an engine can say the same
//! word as a catalog without knowing catalogs. [`open_regular_file`] is here for the same reason: all of them open files by
//! names that people write.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod decoding;
mod device;
mod kv_cache;
mod regular_file;
mod size;

pub use decoding::{ContextOverflow, FinishReason, ReasoningParams, SamplingParams};
pub use device::{DeviceKind, DeviceMemory, SplitMode};
pub use kv_cache::KvCacheType;
pub use regular_file::open_regular_file;
pub use size::format_bytes;

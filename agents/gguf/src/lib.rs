//! GGUF files, read in plain Rust before llama.cpp reads them: a path goes in, a checked header, an estimate of memory, a hash
//! or a dequantized copy comes out.
//!
//! Every size in a header is checked and counts against a budget, so that a damaged or hostile file gives an [`Error`] that says
//! what is wrong and what to do, where llama.cpp would abort. Only regular files are opened, and no error repeats their content. [`estimate_memory`] counts bytes by the rules of llama.cpp without loading anything. [`dequantize()`]
//! arranges the copy and leaves the numbers of each block to its caller. [`GgufWriter`] writes adapters and small models.
//!
//! A model that is split into pieces is read as one, whichever of its files is named.
//!
//! This crate does not link llama.cpp and contains no unsafe code: what it has to know of ggml, such as the sizes of blocks, is
//! written down here, and `artel-llama` tests that ggml agrees. It knows nothing of devices, engines, roles or YAML.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod dequantize;
mod error;
mod float_copy;
mod ggml_types;
mod hash;
mod header;
mod inspect;
mod memory;
mod metadata;
mod parse;
mod pieces;
mod purpose;
mod reader;
mod stated_sampling;
mod tensor;
#[cfg(test)]
mod test_model;
mod writer;

pub use dequantize::{BlockConverter, HalfType, dequantize, remove_stale_files};
pub use error::Error;
pub use float_copy::{FloatCopy, float_copy_bytes, partial_path, write_float_copy};
pub use ggml_types::block_layout;
pub use hash::{content_hash, sampled_hash, verify_sha256};
pub use header::GgufHeader;
pub use inspect::{inspect, inspect_adapter, inspect_adapter_tensors, inspect_any_adapter, inspect_tensors};
pub use memory::{LayerMemory, MemoryEstimate, Unaccounted, estimate_memory};
pub use pieces::for_each_token;
pub use purpose::check_purpose;
pub use stated_sampling::stated_sampling;
pub use tensor::TensorInfo;
pub use writer::{GgufWriter, MetadataValue, TensorLayout};

//! The llama.cpp backend: a GGUF file goes in, an [`artel_engine::Backend`] comes out. No other crate depends on llama.cpp.
//!
//! [`gguf`] reads the header of a file in plain Rust before llama.cpp does, so that a damaged file gives a descriptive error
//! instead of an abort. [`LlamaBackend`] owns one model and a llama.cpp context per adapter; the module `raw` contains all
//! pointers and all `unsafe` code. This crate knows nothing of roles, tasks or clients.
#![deny(unsafe_op_in_unsafe_fn)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backend;
mod chat_tokenizer;
mod constraint;
mod cores;
pub mod gguf;
mod kv_cache;
#[allow(unsafe_code)]
mod raw;

pub use backend::{DeviceBuffers, Error, LlamaBackend, LlamaSplitMode, Options};
pub use cores::physical_cores;
pub use kv_cache::{GgmlType, KvCacheTypes};
pub use raw::device::{BackendDevice, BackendDeviceKind, add_rpc_server, devices, serve_rpc};

//! The only crate that knows llama.cpp: a GGUF file goes in, an [`artel_engine::Backend`] comes out.
//!
//! [`gguf`] reads a file's header in plain Rust before llama.cpp sees it, so that a damaged file is an error with words
//! and not an abort. [`Llama`] owns one model with a context per lane; the module `raw` holds every pointer and every `unsafe`.
//! This crate knows nothing of roles, tasks or clients.
#![deny(unsafe_op_in_unsafe_fn)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod constraint;
mod cores;
pub mod gguf;
mod llama;
#[allow(unsafe_code)]
mod raw;
mod text;

pub use cores::cores;
pub use llama::{Cache, CacheType, Error, Llama, Memory, Options, Split};
pub use raw::device::{Device, Kind, add_rpc, devices, serve_rpc};

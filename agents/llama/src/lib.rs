//! llama.cpp as a backend of the engine: a GGUF file goes in, an [`artel_engine::Backend`] comes out. No other crate depends on
//! llama.cpp.
//!
//! [`LlamaBackend`] owns one model, its llama.cpp context and its adapters. `artel-gguf` checks every file first, because llama.cpp
//! aborts the process on some damaged ones; [`dequantize_blocks`] converts the numbers of its dequantized copies, and tests here
//! compare what it states about ggml's types with ggml. [`devices`] gives devices stable names, also those of RPC servers.
//!
//! The module `raw` contains all pointers and all `unsafe` code, in owned values with safe functions. What goes wrong is an
//! [`Error`] while a model is loaded, which becomes an [`artel_engine::LoadError`], and an [`artel_engine::backend::Error`]
//! later. [`loss`] measures how likely a model finds given answers. This crate knows nothing of roles, tasks or clients.
#![deny(unsafe_op_in_unsafe_fn)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backend;
mod chat_template;
mod chat_tokenizer;
mod constraint;
mod context_params;
mod control_tokens;
mod cores;
mod device_buffers;
mod error;
mod fingerprint;
mod kv_cache;
mod lazy_calls;
mod logprobs;
pub mod loss;
mod options;
mod pair_template;
mod pooling;
mod prefix_lengths;
#[allow(unsafe_code)]
mod raw;
mod reasoning;
mod seeded_choice;
mod text_tokens;
mod token_bias;

pub use backend::LlamaBackend;
pub use chat_template::check_chat_template;
pub use cores::{physical_cores, usable_cores};
pub use error::{DeviceError, Error};
pub use kv_cache::KvCacheTypes;
pub use options::Options;
pub use raw::device::{BackendDevice, add_rpc_server, devices, serve_rpc};
pub use raw::half_float::{dequantize_blocks, fast_half_type};
pub use raw::keepalive::enable_tcp_keepalive;
pub use raw::process::lower_priority;

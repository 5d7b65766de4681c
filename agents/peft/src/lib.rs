//! LoRA adapters from PEFT's directory, which trainers write, to llama.cpp's GGUF, which is served.
//!
//! [`peft_to_gguf`] reads an adapter, and the header of the model that it belongs to. Each layer of the adapter is found in the
//! model, and its matrices have the shape that the model's weight asks for. What an adapter has that GGUF cannot say is refused,
//! with the reason: a conversion gives an adapter with the same effect, or none. What is written appears whole.
//!
//! What differs between the forms:
//!
//! - names, and which end of a matrix is called a row: `model.layers.0.self_attn.q_proj.lora_B.weight` of `[outputs, rank]`
//!   is `blk.0.attn_q.weight.lora_b` with the dimensions `rank, outputs`; the numbers lie in the same order;
//! - the rows of the queries and keys of architecture `llama`, whose rotary embedding rotates neighbours in GGUF, and the
//!   two halves of a head in Transformers;
//! - the scale: PEFT has one per module, alpha over the rank or over its root; GGUF has one alpha, which llama.cpp divides
//!   by each rank. Where they differ, the difference is multiplied into B.
//!
//! The norms of Gemma are stored with an offset in GGUF. It concerns no adapter: LoRA changes linear layers alone.
//!
//! Files may be hostile: their headers, counts and sizes have limits, which hold before memory is taken. This crate knows no
//! engine, no trainer and no gRPC.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod architecture;
mod base_model;
mod error;
mod layer;
mod lora_settings;
mod matrix;
mod module_patterns;
mod row_order;
mod safetensors_file;
mod to_gguf;

pub use base_model::check_base;
pub use error::{AdapterRefusal, ConvertError};
pub use to_gguf::{GgufAdapter, peft_to_gguf};

/// The file of the matrices in PEFT's directory.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// The file of the settings in PEFT's directory.
pub const SETTINGS_FILE: &str = "adapter_config.json";

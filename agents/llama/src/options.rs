//! Which model is loaded, and how.

use std::path::PathBuf;

use artel_model::{ModelPurpose, PieceHashes, SplitMode};
use serde_json::{Map, Value};

use crate::kv_cache::KvCacheTypes;

/// The model to load and its parameters.
#[derive(Debug, Clone)]
pub struct Options {
    /// The GGUF file; any piece of a model in pieces.
    pub path: PathBuf,
    /// A copy of `path` whose matrices are dequantized: its weights are loaded in place of those of `path`.
    pub dequantized: Option<PathBuf>,
    /// The expected SHA-256 of the loaded file, or of each of its pieces; `None`: not verified.
    pub sha256: Option<PieceHashes>,
    /// Tokens of one sequence; by default 4096 or the context length in training, whichever is less.
    pub context: Option<u32>,
    /// Concurrent sequences.
    pub sequences: u32,
    /// Compute threads.
    pub threads: u32,
    /// The devices to use, by name; only `CPU` disables offloading. `None`: llama.cpp uses all GPUs, or the CPU if there are
    /// none.
    pub devices: Option<Vec<String>>,
    /// How the model is split over several devices.
    pub split_mode: SplitMode,
    /// The proportion of each device, in the order of `devices`; empty: proportional to free memory.
    pub tensor_split: Vec<f32>,
    /// The layers on `devices`, counted from the last one, the output as one of them; the others are on the CPU with their KV
    /// cache. `None`: all.
    pub gpu_layers: Option<u32>,
    /// The first layers whose experts are on the CPU.
    pub cpu_expert_layers: u32,
    /// What the model is for.
    pub purpose: ModelPurpose,
    /// A chat template that replaces that of the GGUF.
    pub template: Option<String>,
    /// Variables of the chat template.
    pub template_kwargs: Map<String, Value>,
    /// The types of the KV cache.
    pub kv_cache: KvCacheTypes,
}

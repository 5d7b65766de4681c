//! Devices: their kinds, what a model takes of one, and how a model is split over several.

use serde::{Deserialize, Serialize};

/// The kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// The CPU and the machine's memory.
    Cpu,
    /// A GPU with its own memory.
    Gpu,
    /// A GPU that shares the machine's memory: its allocations are subtracted from the CPU's memory too.
    IntegratedGpu,
    /// Another accelerator, such as a BLAS library that computes together with the CPU.
    Accelerator,
    /// A device of another machine, over llama.cpp's RPC backend.
    Rpc,
}

/// The memory of a model on one device, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceMemory {
    /// The device's name.
    pub device: String,
    /// The weights.
    pub weights: u64,
    /// The KV cache of one context.
    pub kv_cache: u64,
    /// The compute buffers of one context.
    pub compute: u64,
}

/// How a model is split over several devices; llama.cpp's `llama_split_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitMode {
    /// Not at all: it is on one device.
    None,
    /// By layers: each device holds some of them.
    #[default]
    Layer,
    /// By rows of every matrix. Only some backends support it, among them CUDA.
    Row,
}

impl SplitMode {
    /// All of them, the most common first.
    pub const ALL: [Self; 3] = [Self::Layer, Self::None, Self::Row];

    /// Its name in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Layer => "layer",
            Self::Row => "row",
        }
    }
}

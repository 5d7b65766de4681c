//! The placement of one model: on which devices, and why.

use artel_model::{SplitMode, format_bytes};

use crate::device::DeviceBytes;

/// The placement of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// The model.
    pub model: String,
    /// How it is split; [`SplitMode::None`] on one device.
    pub split: SplitMode,
    /// The devices that compute, in the order in which llama.cpp must be given them.
    pub parts: Vec<PlacementPart>,
    /// The device of the machine's memory and the bytes that it holds beside the parts: input embedding and process. None if
    /// the CPU computes, since its part includes them then, and if there is no CPU among the devices.
    pub host: Option<(String, u64)>,
    /// Why this placement, in words and figures.
    pub reason: String,
}

/// The part of a model on one device.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacementPart {
    /// The device.
    pub device: String,
    /// Its share, for llama.cpp's `tensor_split`, to be passed on unchanged: with these numbers llama.cpp's arithmetic
    /// reproduces the planned layers.
    pub share: f32,
    /// The number of layers; they follow those of the previous part.
    pub layers: usize,
    /// Whether it contains the output.
    pub has_output: bool,
    /// Bytes of weights.
    pub weight_bytes: u64,
    /// Bytes of KV cache, over all contexts.
    pub kv_bytes: u64,
    /// Bytes of compute buffers, over all contexts.
    pub compute_bytes: u64,
    /// Bytes of the process; only if the CPU computes.
    pub process_bytes: u64,
}

impl PlacementPart {
    /// The sum of its bytes.
    pub fn bytes(&self) -> u64 {
        self.weight_bytes
            .saturating_add(self.kv_bytes)
            .saturating_add(self.compute_bytes)
            .saturating_add(self.process_bytes)
    }
}

impl Placement {
    /// The bytes that it takes by device, the machine's memory included.
    pub fn bytes(&self) -> DeviceBytes {
        let parts = self.parts.iter().map(|part| (part.device.clone(), part.bytes()));
        parts.chain(self.host.clone()).collect()
    }

    /// The names of the devices that compute, in order.
    pub fn devices(&self) -> Vec<&str> {
        self.parts.iter().map(|part| part.device.as_str()).collect()
    }

    /// The share of each part, normalized to a sum of 1.
    pub fn fractions(&self) -> Vec<f64> {
        let sum: f64 = self.parts.iter().map(|part| f64::from(part.share)).sum();
        self.parts.iter().map(|part| f64::from(part.share) / sum).collect()
    }

    /// The bytes on each computing device as text: `CUDA0 1.2 GB, CUDA1 800 MB`.
    pub(crate) fn summary(&self) -> String {
        let part = |part: &PlacementPart| format!("{} {}", part.device, format_bytes(part.bytes()));
        self.parts.iter().map(part).collect::<Vec<_>>().join(", ")
    }
}

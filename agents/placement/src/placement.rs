//! The placement of one model: on which devices, and why.

use artel_model::{SplitMode, format_bytes};

use crate::cache::CacheShape;
use crate::device::DeviceBytes;

/// The placement of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// The model.
    pub model: String,
    /// How it is split; [`SplitMode::None`] on one device.
    pub split: SplitMode,
    /// The devices that compute, in the order in which llama.cpp must be given them. The CPU is one of them only if it computes
    /// everything.
    pub parts: Vec<PlacementPart>,
    /// What the machine's memory holds beside the parts. None if the CPU computes everything, since its part includes it then,
    /// and if there is no CPU among the devices.
    pub host: Option<HostPart>,
    /// The layers on `parts`, counted from the last one, the output as one of them: llama.cpp's `n_gpu_layers`. None: all.
    pub gpu_layers: Option<u32>,
    /// The first layers whose experts are on the CPU, as llama.cpp's `--n-cpu-moe` counts them.
    pub cpu_expert_layers: u32,
    /// The context length of each sequence, in tokens.
    pub context_tokens: u32,
    /// Concurrent sequences.
    pub sequences: u32,
    /// Why this placement, in words and figures.
    pub reason: String,
}

/// What the machine's memory holds of a model that other devices compute, wholly or in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPart {
    /// The CPU.
    pub device: String,
    /// The layers that the CPU computes: the first ones.
    pub layers: usize,
    /// Bytes of weights: the input embedding, these layers, and experts of other layers.
    pub weight_bytes: u64,
    /// Bytes of the KV cache of these layers.
    pub kv_bytes: u64,
    /// Bytes of compute buffers; 0 if the CPU computes neither layers nor experts.
    pub compute_bytes: u64,
    /// Bytes of the process.
    pub process_bytes: u64,
}

impl HostPart {
    /// The sum of its bytes.
    pub fn bytes(&self) -> u64 {
        self.weight_bytes
            .saturating_add(self.kv_bytes)
            .saturating_add(self.compute_bytes)
            .saturating_add(self.process_bytes)
    }
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
    /// Bytes of KV cache, over all sequences.
    pub kv_bytes: u64,
    /// Bytes of compute buffers.
    pub compute_bytes: u64,
    /// Bytes of the process; only if the CPU computes everything.
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
        parts.chain(self.host.iter().map(|host| (host.device.clone(), host.bytes()))).collect()
    }

    /// Whether the CPU computes some of its layers or experts, beside other devices.
    pub fn is_mixed(&self) -> bool {
        self.gpu_layers.is_some() || self.cpu_expert_layers > 0
    }

    /// Whether the CPU computes any of it.
    pub fn computes_on_cpu(&self) -> bool {
        self.host.is_none() || self.is_mixed()
    }

    /// Its cache.
    pub fn cache(&self) -> CacheShape {
        CacheShape { sequences: self.sequences, context_tokens: self.context_tokens }
    }

    /// How much of it the CPU computes: nothing, some, everything.
    pub(crate) fn cpu_rank(&self) -> u8 {
        match (&self.host, self.is_mixed()) {
            (None, _) => 2,
            (Some(_), true) => 1,
            (Some(_), false) => 0,
        }
    }

    /// The names of the devices that compute, in order.
    pub fn devices(&self) -> Vec<&str> {
        self.parts.iter().map(|part| part.device.as_str()).collect()
    }

    /// The share of each part of what is on the parts, normalized to a sum of 1.
    pub fn fractions(&self) -> Vec<f64> {
        let sum: f64 = self.parts.iter().map(|part| f64::from(part.share)).sum();
        self.parts.iter().map(|part| f64::from(part.share) / sum).collect()
    }

    /// The share of the layers, the output among them, that the CPU computes beside other devices.
    pub fn host_share(&self) -> f64 {
        let on_host = self.host.as_ref().map_or(0, |host| host.layers);
        let on_parts: usize = self.parts.iter().map(|part| part.layers + usize::from(part.has_output)).sum();
        on_host as f64 / (on_host + on_parts).max(1) as f64
    }

    /// The bytes on each computing device as text: `CUDA0 1.2 GB, CUDA1 800 MB`.
    pub(crate) fn summary(&self) -> String {
        let parts = self.parts.iter().map(|part| (&part.device, part.bytes()));
        let host = self.host.iter().filter(|_| self.is_mixed()).map(|host| (&host.device, host.bytes()));
        let each = parts.chain(host).map(|(device, bytes)| format!("{device} {}", format_bytes(bytes)));
        each.collect::<Vec<_>>().join(", ")
    }
}

//! The memory that one model takes.

use artel_model::{CacheSize, ExpertPlacement, GpuLayers, KvCacheType, SplitMode};

use crate::cache::{CacheShape, KV_PADDING_CELLS};

/// Memory of an engine process without its model, and the unused part of huge pages. A measured value: most of it is the program.
pub const PROCESS_BYTES: u64 = 42 << 20;

/// The memory that one model takes, and where it may be placed.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFootprint {
    /// The model's name.
    pub model: String,
    /// Its layers, in order, with the weights of adapters.
    pub layers: Vec<LayerFootprint>,
    /// Bytes of weights before the first layer: the input embedding. llama.cpp leaves them in the machine's memory.
    pub input_bytes: u64,
    /// Bytes of weights after the last layer: the output. They are placed with the last layer or after it.
    pub output_bytes: u64,
    /// Bytes of the output that are the same tensor as in the input: they are stored once if both are in one memory.
    pub tied_bytes: u64,
    /// The data type of the KV cache.
    pub kv_type: KvCacheType,
    /// The same as its settings name it; none with `auto`. Advice on the size of the cache repeats it.
    pub written_kv_type: Option<KvCacheType>,
    /// The context length of each sequence, in tokens.
    pub context_tokens: u32,
    /// The shortest context that the planner may give it if the cache does not fit: `context_tokens` if that was written.
    pub min_context_tokens: u32,
    /// Concurrent sequences.
    pub sequences: u32,
    /// The fewest that the planner may give it if the cache does not fit: `sequences` if that was written.
    pub min_sequences: u32,
    /// The tokens that its roles need of a sequence. No advice goes below; 0 if unknown.
    pub role_tokens: u32,
    /// What was written of the size of the cache.
    pub cache_size: CacheSize,
    /// Bytes of compute buffers on each device other than the CPU that computes. They are measured; they cannot be calculated.
    pub compute_bytes: u64,
    /// The same on the CPU if it computes everything: its batches are smaller.
    pub cpu_compute_bytes: u64,
    /// The same on each device other than the CPU if the CPU holds some layers or experts: such a device computes large batches
    /// of them too, with copies of their weights.
    pub mixed_compute_bytes: u64,
    /// The same on the CPU, beside other devices, if it holds some layers or experts: far fewer than elsewhere, since it has no
    /// outputs.
    pub beside_compute_bytes: u64,
    /// Bytes of the machine's memory that its process takes in addition, on whichever devices it computes.
    pub process_bytes: u64,
    /// The devices on which it may be placed.
    pub devices: DeviceChoice,
    /// How it may be split over devices.
    pub split: SplitMode,
    /// llama.cpp's `tensor_split`: proportions of the pinned devices, in their order, with any sum. Without it, by free memory.
    pub tensor_split: Option<Vec<f32>>,
    /// How many layers are on devices other than the CPU.
    pub gpu_layers: GpuLayers,
    /// Where experts are computed.
    pub experts: ExpertPlacement,
    /// Whether it stays loaded for ever: other models get what it leaves.
    pub is_kept: bool,
    /// Elements of all weights, to estimate what the file would have in another data type; 0 if unknown.
    pub weight_elements: u64,
}

/// The memory of one layer of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerFootprint {
    /// Bytes of its weights.
    pub weight_bytes: u64,
    /// Bytes of its weights in the model's file: fewer if they are dequantized to a type that is faster to compute with.
    pub file_bytes: u64,
    /// Bytes of `weight_bytes` that are experts of a mixture of experts.
    pub expert_bytes: u64,
    /// Bytes of `weight_bytes` that are of adapters: they keep their size with another file of the model.
    pub adapter_bytes: u64,
    /// Elements cached per token, keys and values together; 0 without a cache.
    pub kv_elements: u64,
    /// The most tokens of a sequence that it caches, with sliding-window attention; otherwise all.
    pub window_tokens: Option<u32>,
}

/// The devices on which a model may be placed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The best ones.
    #[default]
    Auto,
    /// These and no others. With [`SplitMode::None`], one of them.
    Pinned(Vec<String>),
}

impl ModelFootprint {
    /// The cache with the wanted context and sequences.
    pub(crate) fn wanted_cache(&self) -> CacheShape {
        CacheShape { sequences: self.sequences, context_tokens: self.context_tokens }
    }

    /// The smallest cache that the planner may give it.
    pub(crate) fn least_cache(&self) -> CacheShape {
        CacheShape { sequences: self.min_sequences, context_tokens: self.min_context_tokens }
    }

    /// Layers and the output, which counts as one.
    pub(crate) fn items(&self) -> usize {
        self.layers.len() + 1
    }

    /// Whether it is a mixture of experts.
    pub(crate) fn has_experts(&self) -> bool {
        self.layers.iter().any(|layer| layer.expert_bytes > 0)
    }

    /// Bytes of the KV cache of one layer, over all sequences.
    pub(crate) fn kv_bytes(&self, layer: &LayerFootprint, cache: CacheShape) -> u64 {
        let kept = layer.window_tokens.map_or(cache.context_tokens, |window| window.min(cache.context_tokens));
        let cells = u64::from(kept).next_multiple_of(u64::from(KV_PADDING_CELLS));
        self.kv_type.bytes(layer.kv_elements).saturating_mul(cells).saturating_mul(u64::from(cache.sequences))
    }

    /// Bytes in total, on one device whose memory is the machine's.
    pub fn total_bytes(&self) -> u64 {
        let cache = self.wanted_cache();
        let layer = |layer: &LayerFootprint| layer.weight_bytes.saturating_add(self.kv_bytes(layer, cache));
        let layers = self.layers.iter().map(layer).fold(0, u64::saturating_add);
        let outside = self.input_bytes.saturating_add(self.output_bytes).saturating_sub(self.tied_bytes);
        layers.saturating_add(outside).saturating_add(self.cpu_compute_bytes).saturating_add(self.process_bytes)
    }
}

//! The memory that one model takes.

use artel_model::{KvCacheType, SplitMode};

/// llama.cpp rounds the KV cells of a sequence up to a multiple of this (its padding of a context's `n_ctx`).
const KV_PADDING_CELLS: u64 = 256;

/// Memory of an engine process without its model, and the unused part of huge pages. A measured value: most of it is the program.
pub const PROCESS_BYTES: u64 = 42 << 20;

/// The memory that one model takes, and where it may be placed.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFootprint {
    /// The model's name.
    pub model: String,
    /// Its layers, in order. The weights of adapters must be added to their layers.
    pub layers: Vec<LayerFootprint>,
    /// Bytes of weights before the first layer: the input embedding. llama.cpp leaves them in the machine's memory.
    pub input_bytes: u64,
    /// Bytes of weights after the last layer: the output. They are placed with the last layer or after it.
    pub output_bytes: u64,
    /// Bytes of the output that are the same tensor as in the input: they are stored once if both are in one memory.
    pub tied_bytes: u64,
    /// The data type of the KV cache.
    pub kv_type: KvCacheType,
    /// The context length of each sequence, in tokens.
    pub context_tokens: u32,
    /// Concurrent sequences in each context.
    pub sequences: u32,
    /// Contexts: the base model's, and one more for each adapter. Each has its own KV cache and buffers.
    pub contexts: u32,
    /// Bytes of compute buffers of one context on each device that computes. They are measured; they cannot be calculated.
    pub compute_bytes: u64,
    /// Bytes of the machine's memory that its process takes in addition, on whichever devices it computes.
    pub process_bytes: u64,
    /// The devices on which it may be placed.
    pub devices: DeviceChoice,
    /// How it may be split over devices.
    pub split: SplitMode,
    /// llama.cpp's `tensor_split`: proportions of the pinned devices, in their order, with any sum. Without it, by free memory.
    pub tensor_split: Option<Vec<f32>>,
}

/// The memory of one layer of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerFootprint {
    /// Bytes of its weights.
    pub weight_bytes: u64,
    /// Bytes of its weights in the model's file: fewer if they are dequantized to a type that is faster to compute with.
    pub file_bytes: u64,
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
    /// Bytes of the KV cache of one layer, over all sequences and contexts.
    pub(crate) fn kv_bytes(&self, layer: &LayerFootprint) -> u64 {
        let kept = layer.window_tokens.map_or(self.context_tokens, |window| window.min(self.context_tokens));
        let cells = u64::from(kept).next_multiple_of(KV_PADDING_CELLS);
        let caches = u64::from(self.sequences).saturating_mul(u64::from(self.contexts));
        self.kv_type.bytes(layer.kv_elements).saturating_mul(cells).saturating_mul(caches)
    }

    /// Bytes of compute buffers on one device that computes.
    pub(crate) fn buffer_bytes(&self) -> u64 {
        self.compute_bytes.saturating_mul(u64::from(self.contexts))
    }

    /// Bytes in total, on one device whose memory is the machine's.
    pub fn total_bytes(&self) -> u64 {
        let layer = |layer: &LayerFootprint| layer.weight_bytes.saturating_add(self.kv_bytes(layer));
        let layers = self.layers.iter().map(layer).fold(0, u64::saturating_add);
        let outside = self.input_bytes.saturating_add(self.output_bytes).saturating_sub(self.tied_bytes);
        layers.saturating_add(outside).saturating_add(self.buffer_bytes()).saturating_add(self.process_bytes)
    }
}

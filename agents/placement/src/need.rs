//! What one model takes.

/// llama.cpp rounds the cells of a sequence up to whole pieces of this many.
const CELLS: u64 = 256;

/// What one model takes, and where it may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Need {
    /// Its name.
    pub model: String,
    /// Its layers, in order. What adapters weigh is to be added to their layers.
    pub layers: Vec<Layer>,
    /// Bytes of weights before the first layer: the input embedding. llama.cpp leaves them in the machine's memory.
    pub input: u64,
    /// Bytes of weights after the last layer: the output. They go where the last layer goes, or after it.
    pub output: u64,
    /// Bytes of `output` that are the same tensor as in `input`: both in one memory, they lie there once.
    pub tied: u64,
    /// The form of the cache.
    pub cache: Cache,
    /// Tokens that each sequence may have.
    pub tokens: u32,
    /// Sequences at once in each lane.
    pub sequences: u32,
    /// Lanes: the base, and one more for each adapter. Each has a whole cache and buffers of its own.
    pub lanes: u32,
    /// Bytes of buffers that one lane takes on each device on which it computes. They cannot be reckoned, only measured.
    pub compute: u64,
    /// Bytes of the machine's memory that its process takes besides, wherever it computes.
    pub process: u64,
    /// Where it may be.
    pub devices: Devices,
    /// How it may be spread.
    pub split: Split,
    /// The shares of the named devices, in their order; they need not add up to anything. Without them, by free memory.
    pub shares: Option<Vec<f32>>,
}

/// One layer of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Bytes of its weights.
    pub weights: u64,
    /// Bytes of them in the model's file: fewer where they are recast to a form that is computed with faster.
    pub in_file: u64,
    /// Numbers that it caches for each token: keys and values together. 0 without a cache.
    pub cached: u64,
    /// The most tokens of a sequence that it keeps, where it looks back no further than a window; otherwise all.
    pub window: Option<u32>,
}

/// The form in which keys and values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Cache {
    /// 4 bytes a number.
    F32,
    /// 2 bytes.
    #[default]
    F16,
    /// 2 bytes.
    Bf16,
    /// 34 bytes for 32 numbers.
    Q8_0,
    /// 18 bytes for 32 numbers.
    Q4_0,
}

impl Cache {
    /// Bytes that so many numbers take.
    pub fn bytes(self, numbers: u64) -> u64 {
        let blocks = |bytes: u64| numbers.div_ceil(32).saturating_mul(bytes);
        match self {
            Self::F32 => numbers.saturating_mul(4),
            Self::F16 | Self::Bf16 => numbers.saturating_mul(2),
            Self::Q8_0 => blocks(34),
            Self::Q4_0 => blocks(18),
        }
    }

    /// As YAML writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }
}

/// Where a model may be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Devices {
    /// Where it is best.
    #[default]
    Auto,
    /// On these and no others. With [`Split::None`], on one of them.
    These(Vec<String>),
}

/// How a model may be spread over devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Split {
    /// On one device.
    None,
    /// Each device may have some of the layers.
    #[default]
    Layer,
    /// Each device has some rows of every matrix. Only some backends can, CUDA among them.
    Row,
}

impl Need {
    /// Bytes of the cache of one layer, over all sequences and lanes.
    pub(crate) fn cache_of(&self, layer: &Layer) -> u64 {
        let kept = layer.window.map_or(self.tokens, |window| window.min(self.tokens));
        let cells = u64::from(kept).next_multiple_of(CELLS);
        let times = u64::from(self.sequences).saturating_mul(u64::from(self.lanes));
        self.cache.bytes(layer.cached).saturating_mul(cells).saturating_mul(times)
    }

    /// Bytes of buffers on one device on which it computes.
    pub(crate) fn buffers(&self) -> u64 {
        self.compute.saturating_mul(u64::from(self.lanes))
    }

    /// Bytes of everything, on one device that is the machine's own memory.
    pub fn total(&self) -> u64 {
        let layer = |layer: &Layer| layer.weights.saturating_add(self.cache_of(layer));
        let layers = self.layers.iter().map(layer).fold(0, u64::saturating_add);
        let outside = self.input.saturating_add(self.output).saturating_sub(self.tied);
        layers.saturating_add(outside).saturating_add(self.buffers()).saturating_add(self.process)
    }
}

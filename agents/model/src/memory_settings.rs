//! What may be said of the memory that a model takes: its KV cache, where its layers are, how long it stays loaded.

use std::time::Duration;

/// The tokens that the KV cache of a model holds, over all of its sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CacheSize {
    /// As many as its sequences may have, or fewer if these do not fit.
    #[default]
    Fitting,
    /// So many.
    Tokens(u32),
    /// As many as fit into this share, in percent, of the memory that is free beside the weights.
    Percent(u8),
}

/// How many layers of a model are computed by devices other than the CPU. The output counts as a layer, as in llama.cpp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum GpuLayers {
    /// As many as fit, if not all do.
    #[default]
    Auto,
    /// So many, counted from the last one; the others stay on the CPU.
    Count(u32),
}

/// Where the experts of a mixture-of-experts model are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ExpertPlacement {
    /// With their layers; those of as many layers as needed on the CPU if not all fit.
    #[default]
    Auto,
    /// On the CPU, in all layers.
    Cpu,
}

/// How long a model that nothing needs stays loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeepLoaded {
    /// Until another model needs its memory.
    #[default]
    UntilNeeded,
    /// For so long, or until another model needs its memory.
    For(Duration),
    /// For ever: no other model gets its memory.
    Forever,
}

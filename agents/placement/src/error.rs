//! Reasons why a model cannot be placed, and changes that would help.

use std::fmt;

use artel_model::{KvCacheType, format_bytes};

use crate::cache::CacheShape;
use crate::device::Device;
use crate::footprint::ModelFootprint;
use crate::placement::Placement;

/// The Jaro-Winkler similarity from which a device is suggested for an unknown name.
const MIN_SIMILARITY_RATIO: f64 = 0.7;

/// The reason why a model cannot be placed.
#[derive(Debug, Clone, PartialEq)]
pub enum PlacementError {
    /// It is pinned to a device that does not exist.
    UnknownDevice {
        /// The model.
        model: String,
        /// The unknown device.
        device: String,
        /// The devices of this machine.
        known: Vec<String>,
        /// The device with the most similar name, if one is similar.
        nearest: Option<String>,
    },
    /// The request is contradictory or not supported by these devices.
    Impossible {
        /// The model.
        model: String,
        /// Why.
        reason: String,
    },
    /// There is too little memory.
    InsufficientMemory {
        /// The model.
        model: String,
        /// The smallest shortage over all tried placements.
        shortage: MemoryShortage,
        /// The smallest cache that was tried, if that is smaller than wanted.
        cache: Option<CacheShape>,
        /// Changes that would make it fit, the least costly first. Each has been tried.
        remedies: Vec<Remedy>,
    },
}

/// The memory that is missing on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryShortage {
    /// The device.
    pub device: String,
    /// Bytes that the model needs there.
    pub needed: u64,
    /// Bytes that are free there, or that it may take there.
    pub free: u64,
    /// The share of its cache in percent, if that limits what it may take.
    pub cache_share: Option<u8>,
}

impl MemoryShortage {
    /// Bytes that are missing.
    pub fn missing(&self) -> u64 {
        self.needed.saturating_sub(self.free)
    }
}

/// Changes of settings, and their result. Each remedy has been tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Remedy {
    /// The changes; all are required.
    pub changes: Vec<SettingChange>,
    /// The footprint after them.
    pub footprint: ModelFootprint,
    /// The placement after them.
    pub placement: Placement,
}

/// A change to a model's definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingChange {
    /// Weights in the data type of the model's file, not dequantized.
    Weights,
    /// A smaller data type of the KV cache.
    Cache {
        /// The present value.
        from: KvCacheType,
        /// The new value.
        to: KvCacheType,
    },
    /// Fewer concurrent sequences.
    Sequences {
        /// The present value.
        from: u32,
        /// The new value.
        to: u32,
    },
    /// A shorter context.
    Context {
        /// The present value.
        from: u32,
        /// The new value.
        to: u32,
    },
    /// Another number of tokens in the cache.
    CacheTokens {
        /// The present value.
        from: u32,
        /// The new value.
        to: u32,
    },
    /// A larger share of memory for the cache, in percent.
    CacheShare {
        /// The present value.
        from: u8,
        /// The new value.
        to: u8,
    },
    /// Fewer layers on devices other than the CPU.
    GpuLayers {
        /// The present value.
        from: u32,
        /// The new value.
        to: u32,
    },
    /// A file of the same model with fewer bits per weight.
    Quantization {
        /// Its name, as in names of files.
        name: &'static str,
        /// The bytes of its weights, estimated.
        bytes: u64,
    },
    /// A split by layers over these devices.
    Split {
        /// Their names.
        devices: Vec<String>,
    },
    /// No pinned devices.
    Unpin,
}

/// In YAML syntax, with the resulting memory.
impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes: Vec<String> = self.changes.iter().map(SettingChange::to_string).collect();
        write!(f, "{}: then it takes {}", changes.join(" and "), self.placement.summary())
    }
}

impl fmt::Display for SettingChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weights => f.write_str("`weights: file`"),
            Self::Cache { from, to } => write!(f, "`cache: {}` instead of {}", to.as_str(), from.as_str()),
            Self::Sequences { from, to } => write!(f, "`sequences: {to}` instead of {from}"),
            Self::Context { from, to } => write!(f, "`context: {to}` instead of {from}"),
            Self::CacheTokens { from, to } => write!(f, "`cache: {{tokens: {to}}}` instead of {from}"),
            Self::CacheShare { from, to } => write!(f, "`cache: {{share: {to}%}}` instead of {from}%"),
            Self::GpuLayers { from, to } => write!(f, "`gpu_layers: {to}` instead of {from}"),
            Self::Quantization { name, bytes } => {
                write!(f, "the same model as {name}, which has about {}", format_bytes(*bytes))
            }
            Self::Split { devices } => write!(f, "`devices: [{}]` with `split: layer`", devices.join(", ")),
            Self::Unpin => f.write_str("`devices: auto`"),
        }
    }
}

impl PlacementError {
    /// A pin to an unknown device.
    pub(crate) fn unknown(model: &str, device: &str, devices: &[Device]) -> Self {
        let known: Vec<String> = devices.iter().map(|device| device.name.clone()).collect();
        let similarity = |name: &String| strsim::jaro_winkler(&name.to_lowercase(), &device.to_lowercase());
        let nearest = known.iter().map(|name| (similarity(name), name)).max_by(|a, b| a.0.total_cmp(&b.0));
        let nearest = nearest.filter(|(similarity, _)| *similarity >= MIN_SIMILARITY_RATIO);
        let nearest = nearest.map(|(_, name)| name.clone());
        Self::UnknownDevice { model: model.to_owned(), device: device.to_owned(), known, nearest }
    }

    /// The model.
    pub fn model(&self) -> &str {
        match self {
            Self::UnknownDevice { model, .. }
            | Self::Impossible { model, .. }
            | Self::InsufficientMemory { model, .. } => model,
        }
    }

    /// The smallest shortage, if there is too little memory.
    pub fn shortage(&self) -> Option<&MemoryShortage> {
        match self {
            Self::InsufficientMemory { shortage, .. } => Some(shortage),
            _ => None,
        }
    }

    /// Changes that would make it fit, the least costly first.
    pub fn remedies(&self) -> &[Remedy] {
        match self {
            Self::InsufficientMemory { remedies, .. } => remedies,
            _ => &[],
        }
    }
}

/// The reason, without the remedies, as a sentence whose subject is the model.
impl fmt::Display for PlacementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownDevice { model, device, known, nearest } => {
                write!(f, "{model} is pinned to {device}, which does not exist; ")?;
                match known.as_slice() {
                    [] => f.write_str("this machine has no devices")?,
                    known => write!(f, "this machine has {}", list(known))?,
                }
                nearest.as_ref().map_or(Ok(()), |nearest| write!(f, "; did you mean {nearest}?"))
            }
            Self::Impossible { model, reason } => write!(f, "{model} cannot be placed: {reason}"),
            Self::InsufficientMemory { model, shortage, cache, .. } => {
                let MemoryShortage { device, needed, free, cache_share } = shortage;
                let missing = format_bytes(shortage.missing());
                let (needed, free) = (format_bytes(*needed), format_bytes(*free));
                write!(f, "{model} does not fit: it needs {needed} of {device}, ")?;
                match cache_share {
                    None => write!(f, "{free} are free, {missing} are missing")?,
                    Some(share) => {
                        write!(f, "`cache: {{share: {share}%}}` leaves it {free}, {missing} are missing")?;
                    }
                }
                cache.as_ref().map_or(Ok(()), |cache| write!(f, ", even with a cache of {cache}"))
            }
        }
    }
}

impl std::error::Error for PlacementError {}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn list<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

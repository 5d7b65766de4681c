//! Changes of a model's settings that would make it fit.

use std::fmt;

use artel_model::{CacheSize, GpuLayers, KvCacheType, SplitMode, format_bytes};

use crate::footprint::ModelFootprint;
use crate::phrase::list;
use crate::placement::Placement;

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

/// A change to a model's definition. Its text has the new `key: value` of the definition in backquotes, whole: it replaces what
/// was written of that key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingChange {
    /// Weights in the data type of the model's file, not dequantized.
    Weights,
    /// A cache of another size, of a smaller data type, or both.
    Cache {
        /// The present value.
        from: CacheValue,
        /// The new value.
        to: CacheValue,
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
    /// Fewer layers on devices other than the CPU.
    GpuLayers {
        /// The present value.
        from: GpuLayers,
        /// The new value.
        to: u32,
    },
    /// All experts on the CPU.
    CpuExperts,
    /// A file of the same model with fewer bits per weight.
    Quantization {
        /// Its name, as in names of files.
        name: &'static str,
        /// The bytes of its weights, estimated.
        bytes: u64,
    },
    /// Other pinned devices.
    Pin {
        /// Their names.
        devices: Vec<String>,
    },
    /// No pinned devices.
    Unpin,
    /// A split by layers.
    SplitByLayer {
        /// The present value.
        from: SplitMode,
    },
    /// No written shares of the devices: these belong to the devices that were written with them.
    NoTensorSplit,
}

/// The value of `cache`: its size and its type belong to one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheValue {
    /// The size.
    pub size: CacheSize,
    /// The data type; none for `auto`.
    pub kv_type: Option<KvCacheType>,
}

impl CacheValue {
    /// That of a model.
    pub(crate) fn of(footprint: &ModelFootprint) -> Self {
        Self { size: footprint.cache_size, kv_type: footprint.written_kv_type }
    }
}

/// In YAML syntax.
impl fmt::Display for CacheValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = match self.size {
            CacheSize::Fitting => return f.write_str(self.kv_type.map_or("auto", KvCacheType::as_str)),
            CacheSize::Tokens(tokens) => format!("tokens: {tokens}"),
            CacheSize::Percent(percent) => format!("share: {percent}%"),
        };
        match self.kv_type {
            None => write!(f, "{{{size}}}"),
            Some(kv_type) => write!(f, "{{{size}, type: {}}}", kv_type.as_str()),
        }
    }
}

/// In YAML syntax, with the resulting memory, and the resulting cache if that is smaller than wanted.
impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes: Vec<String> = self.changes.iter().map(SettingChange::to_string).collect();
        write!(f, "{}: then it takes {}", list(&changes), self.placement.summary())?;
        match self.placement.cache() {
            cache if cache == self.footprint.wanted_cache() => Ok(()),
            cache => write!(f, " with a cache of {cache}"),
        }
    }
}

impl fmt::Display for SettingChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weights => f.write_str("`weights: file`"),
            Self::Cache { from, to } => write!(f, "`cache: {to}` instead of {from}"),
            Self::Sequences { from, to } => write!(f, "`sequences: {to}` instead of {from}"),
            Self::Context { from, to } => write!(f, "`context: {to}` instead of {from}"),
            Self::GpuLayers { from: GpuLayers::Auto, to } => write!(f, "`gpu_layers: {to}` instead of auto"),
            Self::GpuLayers { from: GpuLayers::Count(from), to } => write!(f, "`gpu_layers: {to}` instead of {from}"),
            Self::CpuExperts => f.write_str("`experts: cpu`"),
            Self::Quantization { name, bytes } => {
                write!(f, "the same model as {name}, which has about {}", format_bytes(*bytes))
            }
            Self::Pin { devices } => {
                let devices: Vec<String> = devices.iter().map(|name| quoted(name)).collect();
                write!(f, "`devices: [{}]`", devices.join(", "))
            }
            Self::Unpin => f.write_str("`devices: auto`"),
            Self::SplitByLayer { from } => write!(f, "`split: layer` instead of {}", from.as_str()),
            Self::NoTensorSplit => f.write_str("no `tensor_split`"),
        }
    }
}

/// A name as an element of a YAML list: that of a device of another machine has brackets and a colon.
fn quoted(name: &str) -> String {
    match name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        true => name.to_owned(),
        false => format!("'{}'", name.replace('\'', "''")),
    }
}

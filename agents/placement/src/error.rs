//! Reasons why a model cannot be placed.

use std::fmt;

use artel_model::format_bytes;

use crate::cache::CacheShape;
use crate::device::Device;
use crate::phrase::list;
use crate::setting_change::Remedy;

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
        shortage: Box<MemoryShortage>,
        /// The cache with which it lacks this, if that is smaller than wanted.
        cache: Option<CacheShape>,
        /// What it takes of each device then, if more than one would compute it.
        spread: Option<String>,
        /// Changes that would make it fit, the least costly first. Each has been tried.
        remedies: Vec<Remedy>,
    },
    /// The tokens that are written for its cache are fewer than what else was written, or its roles, need.
    CacheTooSmall {
        /// The model.
        model: String,
        /// The tokens that are written.
        tokens: u32,
        /// The smallest cache that would do.
        least: CacheShape,
        /// Changes with which it fits, the least costly first. Each has been tried.
        remedies: Vec<Remedy>,
    },
}

/// The memory that is missing on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryShortage {
    /// The device.
    pub device: String,
    /// Bytes that the model needs there; those of its cache if the share of its cache limits it.
    pub needed: u64,
    /// Bytes that are free there; those that the share leaves to its cache if that limits it.
    pub free: u64,
    /// Bytes that are free there too, but stay free.
    pub reserve: u64,
    /// The share of its cache in percent, if that limits it.
    pub cache_share: Option<u8>,
}

impl MemoryShortage {
    /// Bytes that are missing.
    pub fn missing(&self) -> u64 {
        self.needed.saturating_sub(self.free)
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
            | Self::InsufficientMemory { model, .. }
            | Self::CacheTooSmall { model, .. } => model,
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
            Self::InsufficientMemory { remedies, .. } | Self::CacheTooSmall { remedies, .. } => remedies,
            Self::UnknownDevice { .. } | Self::Impossible { .. } => &[],
        }
    }

    /// The same with these remedies, if changes of settings can help at all.
    pub(crate) fn with_remedies(mut self, found: impl FnOnce() -> Vec<Remedy>) -> Self {
        match &mut self {
            Self::InsufficientMemory { remedies, .. } | Self::CacheTooSmall { remedies, .. } => *remedies = found(),
            Self::UnknownDevice { .. } | Self::Impossible { .. } => {}
        }
        self
    }

    /// The reason why it does not fit beside models that hold the memory, without which it would be on these devices.
    pub(crate) fn beside(&self, others: &[&str], devices: &[&str]) -> String {
        let (others, on) = (list(others), list(devices));
        match self {
            Self::InsufficientMemory { model, shortage, cache, spread, .. } if !others.is_empty() => {
                let lack = describe_lack(shortage, *cache, spread.as_deref());
                format!(
                    "{model} does not fit beside {others}: {lack}; without {others} it fits on {on}, and they are swapped"
                )
            }
            other => format!("{other}; alone it fits on {on}, and is swapped with the others"),
        }
    }
}

fn describe_lack(shortage: &MemoryShortage, cache: Option<CacheShape>, spread: Option<&str>) -> String {
    let cache = cache.map_or_else(String::new, |cache| format!(", even with a cache of {cache}"));
    let spread = spread.map_or_else(String::new, |spread| format!("; in all it would take {spread}"));
    format!("{shortage}{cache}{spread}")
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
            Self::InsufficientMemory { model, shortage, cache, spread, remedies } => {
                write!(f, "{model} does not fit: {}", describe_lack(shortage, *cache, spread.as_deref()))?;
                match remedies.as_slice() {
                    [] => f.write_str("; no change of its settings would be enough"),
                    _ => Ok(()),
                }
            }
            Self::CacheTooSmall { model, tokens, least, .. } => write!(
                f,
                "{model} cannot be placed: `cache: {{tokens: {tokens}}}` is too small: it needs {} tokens at least, for {least}",
                least.tokens()
            ),
        }
    }
}

/// `it needs 2.0 GB of CPU, 1.2 GB are free, 800 MB are missing`.
impl fmt::Display for MemoryShortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, needed, free, reserve, cache_share } = self;
        let [needed, free, missing] = [*needed, *free, self.missing()].map(format_bytes);
        let subject = if cache_share.is_some() { "its cache" } else { "it" };
        write!(f, "{subject} needs {needed} of {device}, ")?;
        match (cache_share, reserve) {
            (Some(share), _) => write!(f, "`cache: {{share: {share}%}}` leaves it {free}, ")?,
            (None, 0) => write!(f, "{free} are free, ")?,
            (None, reserve) => write!(f, "{free} are free beside a reserve of {}, ", format_bytes(*reserve))?,
        }
        write!(f, "{missing} are missing")
    }
}

impl std::error::Error for PlacementError {}

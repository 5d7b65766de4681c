//! Reasons why a model cannot be placed.

use std::fmt;

use crate::device::Device;
use crate::remedy::Remedy;
use crate::size::{format_bytes, list};

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
    /// Bytes that are free there.
    pub free: u64,
}

impl MemoryShortage {
    /// The shortage for `needed` bytes, if there is one.
    pub(crate) fn of(device: &Device, needed: u64) -> Option<Self> {
        (needed > device.free).then(|| Self { device: device.name.clone(), needed, free: device.free })
    }

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
            Self::InsufficientMemory { model, shortage, .. } => {
                let MemoryShortage { device, needed, free } = shortage;
                let missing = format_bytes(shortage.missing());
                let (needed, free) = (format_bytes(*needed), format_bytes(*free));
                write!(f, "{model} does not fit: it needs {needed} of {device}, {free} are free, {missing} are missing")
            }
        }
    }
}

impl std::error::Error for PlacementError {}

//! Why a model has no place.

use std::fmt;

use crate::device::Device;
use crate::remedy::Remedy;
use crate::size::{bytes, list};

/// How unlike two names may be to be taken for each other.
const LIKENESS: f64 = 0.7;

/// Why a model has no place.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// It is pinned to a device that is not there.
    UnknownDevice {
        /// The model.
        model: String,
        /// The device that it names.
        device: String,
        /// Those that are there.
        known: Vec<String>,
        /// The one that is meant, perhaps.
        nearest: Option<String>,
    },
    /// What is asked cannot be done on any machine like this.
    Impossible {
        /// The model.
        model: String,
        /// Why.
        what: String,
    },
    /// There is too little memory.
    NoRoom {
        /// The model.
        model: String,
        /// Where the least is missing.
        shortage: Shortage,
        /// What would make it fit, the least loss first. Each has been tried.
        remedies: Vec<Remedy>,
    },
}

/// What is missing on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// The device.
    pub device: String,
    /// Bytes that the model needs there.
    pub needs: u64,
    /// Bytes that are free there.
    pub free: u64,
}

impl Shortage {
    /// What is missing for `needs`, if anything is.
    pub(crate) fn of(device: &Device, needs: u64) -> Option<Self> {
        (needs > device.free).then(|| Self { device: device.name.clone(), needs, free: device.free })
    }

    /// Bytes that are missing.
    pub fn missing(&self) -> u64 {
        self.needs.saturating_sub(self.free)
    }
}

impl Refusal {
    /// A pin to a device that is not there.
    pub(crate) fn unknown(model: &str, device: &str, devices: &[Device]) -> Self {
        let known: Vec<String> = devices.iter().map(|device| device.name.clone()).collect();
        let likeness = |name: &String| strsim::jaro_winkler(&name.to_lowercase(), &device.to_lowercase());
        let nearest = known.iter().map(|name| (likeness(name), name)).max_by(|a, b| a.0.total_cmp(&b.0));
        let nearest = nearest.filter(|(likeness, _)| *likeness >= LIKENESS).map(|(_, name)| name.clone());
        Self::UnknownDevice { model: model.to_owned(), device: device.to_owned(), known, nearest }
    }

    /// The model.
    pub fn model(&self) -> &str {
        match self {
            Self::UnknownDevice { model, .. } | Self::Impossible { model, .. } | Self::NoRoom { model, .. } => model,
        }
    }

    /// Where the least is missing, if memory is what is missing.
    pub fn shortage(&self) -> Option<&Shortage> {
        match self {
            Self::NoRoom { shortage, .. } => Some(shortage),
            _ => None,
        }
    }

    /// What would make it fit, the least loss first.
    pub fn remedies(&self) -> &[Remedy] {
        match self {
            Self::NoRoom { remedies, .. } => remedies,
            _ => &[],
        }
    }
}

/// Why, without the remedies, as a sentence that begins with the model.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownDevice { model, device, known, nearest } => {
                write!(f, "{model} is pinned to {device}, and there is no such device; there ")?;
                match known.as_slice() {
                    [] => f.write_str("is none at all")?,
                    [one] => write!(f, "is {one}")?,
                    several => write!(f, "are {}", list(several))?,
                }
                nearest.as_ref().map_or(Ok(()), |nearest| write!(f, ". Is {nearest} meant?"))
            }
            Self::Impossible { model, what } => write!(f, "{model} has no place: {what}"),
            Self::NoRoom { model, shortage, .. } => {
                let Shortage { device, needs, free } = shortage;
                let missing = bytes(shortage.missing());
                let (needs, free) = (bytes(*needs), bytes(*free));
                write!(f, "{model} does not fit: it needs {needs} of {device}, {free} are free, {missing} are missing")
            }
        }
    }
}

impl std::error::Error for Refusal {}

//! What would make a model fit.

use std::fmt;

use crate::device::{Device, Kind};
use crate::need::{Cache, Devices, Need, Split};
use crate::place::{Place, fit};

/// The smallest context that is worth offering: a role's prompt and an answer.
const LEAST_TOKENS: u32 = 512;
/// Contexts are offered in whole pieces of this many tokens, as llama.cpp makes them.
const PIECE: u32 = 256;

/// Something to change, and what comes of it. It has been tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Remedy {
    /// What to change, all of it.
    pub changes: Vec<Change>,
    /// The need as it would be.
    pub need: Need,
    /// The place that it would have.
    pub place: Place,
}

/// Something to change in a model's definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The weights as the model's file has them.
    Weights,
    /// A smaller form of the cache.
    Cache {
        /// As it is.
        from: Cache,
        /// As it would be.
        to: Cache,
    },
    /// Fewer sequences at once.
    Sequences {
        /// As it is.
        from: u32,
        /// As it would be.
        to: u32,
    },
    /// A smaller context.
    Context {
        /// As it is.
        from: u32,
        /// As it would be.
        to: u32,
    },
    /// A split by layers over these devices.
    Split {
        /// Their names.
        over: Vec<String>,
    },
    /// No pin.
    Unpin,
}

/// As one writes it in YAML, with the figures.
impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes: Vec<String> = self.changes.iter().map(Change::to_string).collect();
        write!(f, "{}: then it takes {}", changes.join(" and "), self.place.figures())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weights => f.write_str("`weights: file`"),
            Self::Cache { from, to } => write!(f, "`cache: {}` instead of {}", to.word(), from.word()),
            Self::Sequences { from, to } => write!(f, "`sequences: {to}` instead of {from}"),
            Self::Context { from, to } => write!(f, "`context: {to}` instead of {from}"),
            Self::Split { over } => write!(f, "`devices: [{}]` with `split: layer`", over.join(", ")),
            Self::Unpin => f.write_str("`devices: auto`"),
        }
    }
}

/// What would make it fit, the least loss first: first what costs precision, speed or length alone, then these together, then
/// what changes where it is.
pub(crate) fn remedies(need: &Need, devices: &[Device]) -> Vec<Remedy> {
    let as_it_is = Trial { need: need.clone(), changes: Vec::new(), devices };
    let alone = [Trial::in_file, Trial::q8_0, Trial::fewer_sequences, Trial::less_context];
    let alone = alone.iter().filter_map(|change| change(as_it_is.clone()));
    let mut remedies: Vec<Remedy> = alone.filter_map(Trial::settle).collect();
    if remedies.is_empty() {
        remedies.extend(as_it_is.together());
    }
    remedies.extend(as_it_is.clone().split());
    let unpinned = as_it_is.unpin().and_then(Trial::settle);
    // The same place by another name is no other remedy.
    remedies.extend(unpinned.filter(|unpinned| remedies.iter().all(|other| other.place.parts != unpinned.place.parts)));
    remedies
}

/// A need with changes.
#[derive(Clone)]
struct Trial<'a> {
    need: Need,
    changes: Vec<Change>,
    devices: &'a [Device],
}

impl Trial<'_> {
    fn fits(&self) -> bool {
        fit(&self.need, self.devices).is_ok()
    }

    fn settle(self) -> Option<Remedy> {
        let place = fit(&self.need, self.devices).ok()?;
        Some(Remedy { changes: self.changes, need: self.need, place })
    }

    /// Weights that are slower, unless they are as the file has them.
    fn in_file(mut self) -> Option<Self> {
        if self.need.layers.iter().all(|layer| layer.in_file >= layer.weights) {
            return None;
        }
        self.need.layers.iter_mut().for_each(|layer| layer.weights = layer.in_file);
        self.changes.push(Change::Weights);
        Some(self)
    }

    /// Fewer bits for each number, unless there are as few already.
    fn q8_0(mut self) -> Option<Self> {
        let from = self.need.cache;
        if matches!(from, Cache::Q8_0 | Cache::Q4_0) {
            return None;
        }
        self.need.cache = Cache::Q8_0;
        self.changes.push(Change::Cache { from, to: Cache::Q8_0 });
        Some(self)
    }

    /// As many sequences as fit; one if none do.
    fn fewer_sequences(mut self) -> Option<Self> {
        let from = self.need.sequences;
        let most = self.most(1, from.checked_sub(1)?, |need, sequences| need.sequences = sequences)?;
        self.need.sequences = most;
        self.changes.push(Change::Sequences { from, to: most });
        Some(self)
    }

    /// As many tokens as fit; the fewest worth having if none do.
    fn less_context(mut self) -> Option<Self> {
        let from = self.need.tokens;
        let pieces = (LEAST_TOKENS / PIECE, from.checked_sub(1)? / PIECE);
        let most = self.most(pieces.0, pieces.1, |need, pieces| need.tokens = pieces * PIECE)? * PIECE;
        self.need.tokens = most;
        self.changes.push(Change::Context { from, to: most });
        Some(self)
    }

    /// The most of `least..=most` with which it fits, `least` if none; none if there is nothing to choose from.
    fn most(&self, least: u32, most: u32, set: impl Fn(&mut Need, u32)) -> Option<u32> {
        if least > most {
            return None;
        }
        let fits = |value: u32| {
            let mut trial = self.clone();
            set(&mut trial.need, value);
            trial.fits()
        };
        let (mut low, mut high) = (least, most);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if fits(middle) { low = middle } else { high = middle - 1 }
        }
        Some(low)
    }

    /// One loss after the other, until it fits.
    fn together(&self) -> Option<Remedy> {
        let mut trial = self.clone();
        for change in [Self::in_file, Self::q8_0, Self::fewer_sequences, Self::less_context] {
            trial = change(trial.clone()).unwrap_or(trial);
            if trial.fits() {
                return trial.settle();
            }
        }
        None
    }

    /// The fewest devices that hold it together, those that are named among them.
    fn split(self) -> Option<Remedy> {
        let named: Vec<String> = match &self.need.devices {
            Devices::Auto => Vec::new(),
            Devices::These(names) => names.clone(),
        };
        let spreads = |device: &&Device| !matches!(device.kind, Kind::Cpu | Kind::IntegratedGpu);
        let mut others: Vec<&Device> = self.devices.iter().filter(spreads).collect();
        let usable = named.iter().all(|name| others.iter().any(|device| device.name == *name));
        if !usable {
            return None;
        }
        others.retain(|device| !named.contains(&device.name));
        others.sort_by_key(|device| std::cmp::Reverse(device.free));
        // With `split: none`, those named are not all used yet.
        let first = usize::from(self.need.split != Split::None || named.len() < 2);
        (first..=others.len()).find_map(|count| {
            let taken = others[..count].iter().map(|device| device.name.clone());
            let over: Vec<String> = named.iter().cloned().chain(taken).collect();
            let mut trial = self.clone();
            trial.need.devices = Devices::These(over.clone());
            trial.need.split = Split::Layer;
            trial.need.shares = None;
            trial.changes.push(Change::Split { over });
            trial.settle().filter(|remedy| remedy.place.parts.len() > 1)
        })
    }

    fn unpin(mut self) -> Option<Self> {
        if self.need.devices == Devices::Auto {
            return None;
        }
        self.need.devices = Devices::Auto;
        self.need.shares = None;
        self.changes.push(Change::Unpin);
        Some(self)
    }
}

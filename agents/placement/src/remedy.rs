//! Changes that would make a model fit.

use artel_model::{DeviceKind, KvCacheType, SplitMode};

use crate::device::Device;
use crate::error::{Remedy, SettingChange};
use crate::fit::fit;
use crate::footprint::{DeviceChoice, ModelFootprint};

/// The smallest context offered: enough for a role's prompt and an answer.
const MIN_CONTEXT_TOKENS: u32 = 512;
/// Context lengths are offered in multiples of this many tokens, as llama.cpp allocates them.
const CONTEXT_MULTIPLE_TOKENS: u32 = 256;

/// Changes that would make it fit, the least costly first: single changes that cost precision, speed or context, then these
/// combined, then changes of devices.
pub(crate) fn remedies(footprint: &ModelFootprint, devices: &[Device]) -> Vec<Remedy> {
    let unchanged = RemedyTrial { footprint: footprint.clone(), changes: Vec::new(), devices };
    let alone = [
        RemedyTrial::file_weights,
        RemedyTrial::q8_0_cache,
        RemedyTrial::fewer_sequences,
        RemedyTrial::shorter_context,
    ];
    let alone = alone.iter().filter_map(|change| change(unchanged.clone()));
    let mut remedies: Vec<Remedy> = alone.filter_map(RemedyTrial::into_remedy).collect();
    if remedies.is_empty() {
        remedies.extend(unchanged.combined());
    }
    remedies.extend(unchanged.clone().split());
    let unpinned = unchanged.unpin().and_then(RemedyTrial::into_remedy);
    // The same placement is not offered twice.
    remedies.extend(
        unpinned.filter(|unpinned| remedies.iter().all(|other| other.placement.parts != unpinned.placement.parts)),
    );
    remedies
}

/// A footprint with changes.
#[derive(Clone)]
struct RemedyTrial<'a> {
    footprint: ModelFootprint,
    changes: Vec<SettingChange>,
    devices: &'a [Device],
}

impl RemedyTrial<'_> {
    fn fits(&self) -> bool {
        fit(&self.footprint, self.devices).is_ok()
    }

    fn into_remedy(self) -> Option<Remedy> {
        let placement = fit(&self.footprint, self.devices).ok()?;
        Some(Remedy { changes: self.changes, footprint: self.footprint, placement })
    }

    /// Weights in the file's data type, which is slower; none if they are in it already.
    fn file_weights(mut self) -> Option<Self> {
        if self.footprint.layers.iter().all(|layer| layer.file_bytes >= layer.weight_bytes) {
            return None;
        }
        self.footprint.layers.iter_mut().for_each(|layer| layer.weight_bytes = layer.file_bytes);
        self.changes.push(SettingChange::Weights);
        Some(self)
    }

    /// A KV cache with fewer bits per element; none if it has as few already.
    fn q8_0_cache(mut self) -> Option<Self> {
        let from = self.footprint.kv_type;
        if matches!(from, KvCacheType::Q8_0 | KvCacheType::Q4_0) {
            return None;
        }
        self.footprint.kv_type = KvCacheType::Q8_0;
        self.changes.push(SettingChange::Cache { from, to: KvCacheType::Q8_0 });
        Some(self)
    }

    /// As many sequences as fit; one if none fit.
    fn fewer_sequences(mut self) -> Option<Self> {
        let from = self.footprint.sequences;
        let most = self.largest(1, from.checked_sub(1)?, |footprint, sequences| footprint.sequences = sequences)?;
        self.footprint.sequences = most;
        self.changes.push(SettingChange::Sequences { from, to: most });
        Some(self)
    }

    /// As long a context as fits; the shortest offered if none fits.
    fn shorter_context(mut self) -> Option<Self> {
        let from = self.footprint.context_tokens;
        let (least, most) =
            (MIN_CONTEXT_TOKENS / CONTEXT_MULTIPLE_TOKENS, from.checked_sub(1)? / CONTEXT_MULTIPLE_TOKENS);
        let most = self.largest(least, most, |footprint, multiple| {
            footprint.context_tokens = multiple * CONTEXT_MULTIPLE_TOKENS;
        })? * CONTEXT_MULTIPLE_TOKENS;
        self.footprint.context_tokens = most;
        self.changes.push(SettingChange::Context { from, to: most });
        Some(self)
    }

    /// The largest of `least..=most` with which it fits, `least` if none fits; none if the range is empty.
    fn largest(&self, least: u32, most: u32, set: impl Fn(&mut ModelFootprint, u32)) -> Option<u32> {
        if least > most {
            return None;
        }
        let fits = |value: u32| {
            let mut trial = self.clone();
            set(&mut trial.footprint, value);
            trial.fits()
        };
        let (mut low, mut high) = (least, most);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if fits(middle) { low = middle } else { high = middle - 1 }
        }
        Some(low)
    }

    /// Adds one change after the other until it fits.
    fn combined(&self) -> Option<Remedy> {
        let mut trial = self.clone();
        for change in [Self::file_weights, Self::q8_0_cache, Self::fewer_sequences, Self::shorter_context] {
            trial = change(trial.clone()).unwrap_or(trial);
            if trial.fits() {
                return trial.into_remedy();
            }
        }
        None
    }

    /// A split over the fewest devices on which it fits, the pinned ones among them.
    fn split(self) -> Option<Remedy> {
        let pinned: Vec<String> = match &self.footprint.devices {
            DeviceChoice::Auto => Vec::new(),
            DeviceChoice::Pinned(names) => names.clone(),
        };
        let can_split = |device: &&Device| !matches!(device.kind, DeviceKind::Cpu | DeviceKind::IntegratedGpu);
        let mut others: Vec<&Device> = self.devices.iter().filter(can_split).collect();
        let usable = pinned.iter().all(|name| others.iter().any(|device| device.name == *name));
        if !usable {
            return None;
        }
        others.retain(|device| !pinned.contains(&device.name));
        others.sort_by_key(|device| std::cmp::Reverse(device.free));
        // With `split: none`, the pinned devices are not all used yet.
        let first = usize::from(self.footprint.split != SplitMode::None || pinned.len() < 2);
        (first..=others.len()).find_map(|count| {
            let taken = others[..count].iter().map(|device| device.name.clone());
            let devices: Vec<String> = pinned.iter().cloned().chain(taken).collect();
            let mut trial = self.clone();
            trial.footprint.devices = DeviceChoice::Pinned(devices.clone());
            trial.footprint.split = SplitMode::Layer;
            trial.footprint.tensor_split = None;
            trial.changes.push(SettingChange::Split { devices });
            trial.into_remedy().filter(|remedy| remedy.placement.parts.len() > 1)
        })
    }

    fn unpin(mut self) -> Option<Self> {
        if self.footprint.devices == DeviceChoice::Auto {
            return None;
        }
        self.footprint.devices = DeviceChoice::Auto;
        self.footprint.tensor_split = None;
        self.changes.push(SettingChange::Unpin);
        Some(self)
    }
}

//! Changes that would make a model fit.

use artel_model::{CacheSize, DeviceKind, GpuLayers, KvCacheType, SplitMode};

use crate::cache::KV_PADDING_CELLS;
use crate::cache_shapes::CacheShapes;
use crate::device::Device;
use crate::error::{Remedy, SettingChange};
use crate::footprint::{DeviceChoice, ModelFootprint};
use crate::quantization;
use crate::space::{Space, fit_within};

/// The smallest context offered if the needs of the roles are unknown: enough for a role's prompt and an answer.
const MIN_CONTEXT_TOKENS: u32 = 512;
/// The largest share of memory for a cache that is offered, the largest that a model may set.
const MAX_CACHE_PERCENT: u32 = 90;

/// Changes that would make it fit, the least costly first: single changes that cost precision, speed or context, then these
/// combined, then another file, then changes of devices.
///
/// What a model leaves to the planner needs no advice: it has tried fewer sequences, a shorter context, experts and layers on the
/// CPU.
pub(crate) fn remedies(footprint: &ModelFootprint, space: &Space<'_>) -> Vec<Remedy> {
    let unchanged = RemedyTrial { footprint: footprint.clone(), changes: Vec::new(), space };
    let alone = [
        RemedyTrial::file_weights,
        RemedyTrial::fewer_gpu_layers,
        RemedyTrial::q8_0_cache,
        RemedyTrial::other_cache_tokens,
        RemedyTrial::larger_cache_share,
        RemedyTrial::fewer_sequences,
        RemedyTrial::shorter_context,
    ];
    let alone = alone.iter().filter_map(|change| change(unchanged.clone()));
    let mut remedies: Vec<Remedy> = alone.filter_map(RemedyTrial::into_remedy).collect();
    if remedies.is_empty() {
        remedies.extend(unchanged.combined());
    }
    remedies.extend(unchanged.quantized());
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
    space: &'a Space<'a>,
}

impl RemedyTrial<'_> {
    fn fits(&self) -> bool {
        fit_within(&self.footprint, self.space).is_ok()
    }

    fn into_remedy(self) -> Option<Remedy> {
        let placement = fit_within(&self.footprint, self.space).ok()?;
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

    /// As many layers on devices other than the CPU as fit; one if none fit.
    fn fewer_gpu_layers(mut self) -> Option<Self> {
        let GpuLayers::Count(from) = self.footprint.gpu_layers else { return None };
        let most = u32::try_from(self.footprint.items()).unwrap_or(u32::MAX).min(from).checked_sub(1)?;
        let set = |footprint: &mut ModelFootprint, count| footprint.gpu_layers = GpuLayers::Count(count);
        let to = self.largest(1, most, set)?;
        set(&mut self.footprint, to);
        self.changes.push(SettingChange::GpuLayers { from, to });
        Some(self)
    }

    /// As many tokens in the cache as fit, or as few as are enough.
    fn other_cache_tokens(mut self) -> Option<Self> {
        let CacheSize::Tokens(from) = self.footprint.cache_size else { return None };
        let set = |footprint: &mut ModelFootprint, tokens| footprint.cache_size = CacheSize::Tokens(tokens);
        let multiples = from.checked_sub(1)? / KV_PADDING_CELLS;
        let to = self.largest(1, multiples, |footprint, multiple| set(footprint, multiple * KV_PADDING_CELLS))?;
        set(&mut self.footprint, to * KV_PADDING_CELLS);
        // The sequences need not use all of them.
        let used =
            CacheShapes::of(&self.footprint, self.footprint.least_cache()).map(|shapes| shapes.largest().tokens());
        let to = used.and_then(|used| u32::try_from(used).ok()).unwrap_or(to * KV_PADDING_CELLS);
        set(&mut self.footprint, to);
        self.changes.push(SettingChange::CacheTokens { from, to });
        Some(self)
    }

    /// The smallest share of memory that is enough for the cache.
    fn larger_cache_share(mut self) -> Option<Self> {
        let CacheSize::Percent(from) = self.footprint.cache_size else { return None };
        let set =
            |footprint: &mut ModelFootprint, percent: u32| footprint.cache_size = CacheSize::Percent(percent as u8);
        // The largest number of percent points below the most.
        let points = MAX_CACHE_PERCENT.checked_sub(u32::from(from) + 1)?;
        let saved = self.largest(0, points, |footprint, points| set(footprint, MAX_CACHE_PERCENT - points))?;
        set(&mut self.footprint, MAX_CACHE_PERCENT - saved);
        self.changes.push(SettingChange::CacheShare { from, to: (MAX_CACHE_PERCENT - saved) as u8 });
        Some(self)
    }

    /// As many sequences as fit; one if none fit.
    fn fewer_sequences(mut self) -> Option<Self> {
        let from = self.footprint.sequences;
        if self.footprint.min_sequences < from {
            return None;
        }
        let set = |footprint: &mut ModelFootprint, sequences| {
            footprint.sequences = sequences;
            footprint.min_sequences = sequences;
        };
        let most = self.largest(1, from.checked_sub(1)?, set)?;
        set(&mut self.footprint, most);
        self.changes.push(SettingChange::Sequences { from, to: most });
        Some(self)
    }

    /// As long a context as fits; the shortest offered if none fits.
    fn shorter_context(mut self) -> Option<Self> {
        let from = self.footprint.context_tokens;
        if self.footprint.min_context_tokens < from {
            return None;
        }
        let least = MIN_CONTEXT_TOKENS.max(self.footprint.role_tokens).div_ceil(KV_PADDING_CELLS);
        let set = |footprint: &mut ModelFootprint, multiple: u32| {
            footprint.context_tokens = multiple * KV_PADDING_CELLS;
            footprint.min_context_tokens = footprint.context_tokens;
        };
        let multiple = self.largest(least, from.checked_sub(1)? / KV_PADDING_CELLS, set)?;
        set(&mut self.footprint, multiple);
        let most = self.footprint.context_tokens;
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
        let changes = [
            Self::file_weights,
            Self::fewer_gpu_layers,
            Self::q8_0_cache,
            Self::other_cache_tokens,
            Self::fewer_sequences,
            Self::shorter_context,
        ];
        for change in changes {
            trial = change(trial.clone()).unwrap_or(trial);
            if trial.fits() {
                return trial.into_remedy();
            }
        }
        None
    }

    /// The most exact quantization that fits.
    fn quantized(&self) -> Option<Remedy> {
        quantization::smaller(&self.footprint).into_iter().find_map(|(name, bytes, footprint)| {
            let mut trial = Self { footprint, ..self.clone() };
            trial.changes.push(SettingChange::Quantization { name, bytes });
            trial.into_remedy()
        })
    }

    /// A split over the fewest devices on which it fits, the pinned ones among them.
    fn split(self) -> Option<Remedy> {
        let pinned: Vec<String> = match &self.footprint.devices {
            DeviceChoice::Auto => Vec::new(),
            DeviceChoice::Pinned(names) => names.clone(),
        };
        let can_split = |device: &&Device| !matches!(device.kind, DeviceKind::Cpu | DeviceKind::IntegratedGpu);
        let mut others: Vec<&Device> = self.space.free.iter().filter(can_split).collect();
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

//! Changes that would make a model fit.

use artel_model::{CacheSize, DeviceKind, ExpertPlacement, GpuLayers, KvCacheType, SplitMode};

use crate::cache::{CacheShape, KV_PADDING_CELLS};
use crate::cache_shapes::CacheShapes;
use crate::device::{Device, host};
use crate::fit;
use crate::footprint::{DeviceChoice, ModelFootprint};
use crate::quantization;
use crate::setting_change::{CacheValue, Remedy, SettingChange};
use crate::space::{Space, fit_within};

/// The smallest context offered if the needs of the roles are unknown: enough for a role's prompt and an answer.
const MIN_CONTEXT_TOKENS: u32 = 512;
/// The largest share of memory for a cache that is offered, the largest that a model may set.
const MAX_CACHE_PERCENT: u32 = 90;

/// Changes that would make it fit, the least costly first: single changes that cost precision, speed or context, then these
/// combined, then another file, then changes of devices.
///
/// Of what a model leaves to the planner, it has tried fewer sequences, a shorter context, experts and layers on the CPU. If it
/// may not do so of its own accord, as beside other models, these are offered.
pub(crate) fn remedies(footprint: &ModelFootprint, space: &Space<'_>) -> Vec<Remedy> {
    let unchanged = RemedyTrial { footprint: footprint.clone(), changes: Vec::new(), space };
    let alone = [
        RemedyTrial::file_weights,
        RemedyTrial::cpu_experts,
        RemedyTrial::fewer_gpu_layers,
        RemedyTrial::some_gpu_layers,
        RemedyTrial::q8_0_cache,
        RemedyTrial::other_cache_tokens,
        RemedyTrial::larger_cache_share,
        RemedyTrial::fewer_sequences,
        RemedyTrial::shorter_context,
    ];
    let alone = alone.iter().filter_map(|change| change(unchanged.clone()));
    let mut remedies: Vec<Remedy> = alone.filter_map(RemedyTrial::into_remedy).collect();
    if remedies.is_empty() {
        remedies.extend(unchanged.combined(RemedyTrial::into_remedy));
    }
    remedies.extend(unchanged.quantized());
    if remedies.is_empty() {
        remedies.extend(unchanged.combined(|trial| trial.quantized()));
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
        self.change_cache(|footprint| {
            footprint.kv_type = KvCacheType::Q8_0;
            footprint.written_kv_type = Some(KvCacheType::Q8_0);
        });
        Some(self)
    }

    /// Changes the size or the type of the cache: both are one key.
    fn change_cache(&mut self, change: impl FnOnce(&mut ModelFootprint)) {
        let from = CacheValue::of(&self.footprint);
        change(&mut self.footprint);
        let to = CacheValue::of(&self.footprint);
        let earlier = self.changes.iter_mut().find_map(|change| match change {
            SettingChange::Cache { to, .. } => Some(to),
            _ => None,
        });
        match earlier {
            Some(earlier) => *earlier = to,
            None => self.changes.push(SettingChange::Cache { from, to }),
        }
    }

    /// All experts on the CPU; none if that is written, or there are none.
    fn cpu_experts(mut self) -> Option<Self> {
        if self.footprint.experts == ExpertPlacement::Cpu || !self.footprint.has_experts() {
            return None;
        }
        self.footprint.experts = ExpertPlacement::Cpu;
        self.changes.push(SettingChange::CpuExperts);
        Some(self)
    }

    /// As many layers on devices other than the CPU as fit; one if none fit.
    fn fewer_gpu_layers(self) -> Option<Self> {
        match self.footprint.gpu_layers {
            GpuLayers::Auto => None,
            GpuLayers::Count(count) => self.gpu_layers_below(count, 1),
        }
    }

    /// As many layers on devices other than the CPU as fit, of a model that does not say how many; none if so few would fit that
    /// they are not worth it.
    fn some_gpu_layers(self) -> Option<Self> {
        if self.footprint.gpu_layers != GpuLayers::Auto || host(self.space.all).is_none() {
            return None;
        }
        let least = u32::try_from(fit::least_device_items(&self.footprint)).ok()?;
        self.gpu_layers_below(u32::MAX, least)
    }

    fn gpu_layers_below(mut self, count: u32, least: u32) -> Option<Self> {
        let from = self.footprint.gpu_layers;
        let most = u32::try_from(self.footprint.items()).unwrap_or(u32::MAX).min(count).checked_sub(1)?;
        let set = |footprint: &mut ModelFootprint, count| footprint.gpu_layers = GpuLayers::Count(count);
        let to = self.largest(least, most, set)?;
        set(&mut self.footprint, to);
        self.changes.push(SettingChange::GpuLayers { from, to });
        Some(self)
    }

    /// As many tokens in the cache as fit; as few as are enough if more are needed than are written, or none fit.
    fn other_cache_tokens(mut self) -> Option<Self> {
        let CacheSize::Tokens(from) = self.footprint.cache_size else { return None };
        let set = |footprint: &mut ModelFootprint, tokens| footprint.cache_size = CacheSize::Tokens(tokens);
        let tokens = |shape: CacheShape| u32::try_from(shape.tokens()).unwrap_or(u32::MAX);
        let shapes = CacheShapes::of_any_size(&self.footprint, self.footprint.least_cache());
        let fits = |shape: CacheShape| {
            let mut trial = self.clone();
            set(&mut trial.footprint, tokens(shape));
            tokens(shape) < from && trial.fits()
        };
        let to = tokens(shapes.largest_of(fits).unwrap_or_else(|| shapes.smallest()));
        if to == from {
            return None;
        }
        self.change_cache(|footprint| set(footprint, to));
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
        self.change_cache(|footprint| set(footprint, MAX_CACHE_PERCENT - saved));
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

    /// Adds one change after the other until that `helps`.
    fn combined(&self, helps: impl Fn(Self) -> Option<Remedy>) -> Option<Remedy> {
        let mut trial = self.clone();
        let changes = [
            Self::file_weights,
            Self::fewer_gpu_layers,
            Self::q8_0_cache,
            Self::other_cache_tokens,
            Self::larger_cache_share,
            Self::fewer_sequences,
            Self::shorter_context,
        ];
        for change in changes {
            trial = change(trial.clone()).unwrap_or(trial);
            if let Some(remedy) = helps(trial.clone()) {
                return Some(remedy);
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
            if devices != pinned {
                trial.footprint.devices = DeviceChoice::Pinned(devices.clone());
                trial.changes.push(SettingChange::Pin { devices });
            }
            if trial.footprint.split != SplitMode::Layer {
                trial.changes.push(SettingChange::SplitByLayer { from: trial.footprint.split });
                trial.footprint.split = SplitMode::Layer;
            }
            trial.forget_tensor_split();
            trial.into_remedy().filter(|remedy| remedy.placement.parts.len() > 1)
        })
    }

    fn unpin(mut self) -> Option<Self> {
        if self.footprint.devices == DeviceChoice::Auto {
            return None;
        }
        self.footprint.devices = DeviceChoice::Auto;
        self.changes.push(SettingChange::Unpin);
        self.forget_tensor_split();
        Some(self)
    }

    /// Its numbers belong to the devices that were named with it.
    fn forget_tensor_split(&mut self) {
        if self.footprint.tensor_split.take().is_some() {
            self.changes.push(SettingChange::NoTensorSplit);
        }
    }
}

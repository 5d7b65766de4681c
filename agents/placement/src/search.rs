//! The search for a placement of one model on given devices.

use artel_model::{CacheSize, DeviceKind, ExpertPlacement, GpuLayers, SplitMode};

use crate::cache::CacheShape;
use crate::cache_shapes::CacheShapes;
use crate::device::{Device, demand, host};
use crate::error::{MemoryShortage, PlacementError};
use crate::footprint::ModelFootprint;
use crate::layout::{self, Arrangement, Layout};
use crate::limits::FitLimits;
use crate::placement::Placement;

/// The part of a device that stays free if a model is fitted to what is free: compute buffers of a model that was never loaded
/// are a guess, and other programs take memory too. A GPU of 8 GB keeps 250 MB.
const RESERVE_DIVISOR: u64 = 32;

/// The devices with what a model that is fitted to them may take.
pub(crate) fn with_reserve(devices: &[Device]) -> Vec<Device> {
    let rest =
        |device: &Device| Device { free: device.free.saturating_sub(device.total / RESERVE_DIVISOR), ..device.clone() };
    devices.iter().map(rest).collect()
}

/// Devices, and how many of them a model may use.
#[derive(Debug)]
pub(crate) struct DeviceSet<'a> {
    /// All devices, those that it may not use included.
    all: &'a [Device],
    devices: Vec<&'a Device>,
    takes: DevicesTaken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DevicesTaken {
    /// One of them.
    One,
    /// One of them, or else the fewest together.
    OneOrSeveral,
    /// All of them together.
    All,
}

impl<'a> DeviceSet<'a> {
    /// The devices of these kinds.
    pub(crate) fn of_kinds(all: &'a [Device], kinds: &[DeviceKind], takes: DevicesTaken) -> Self {
        Self { all, devices: all.iter().filter(|device| kinds.contains(&device.kind)).collect(), takes }
    }

    /// The devices of these names.
    pub(crate) fn of_names(all: &'a [Device], names: &[String], takes: DevicesTaken) -> Self {
        let named = |name: &String| all.iter().find(|device| device.name == *name);
        Self { all, devices: names.iter().filter_map(named).collect(), takes }
    }

    fn group(&self) -> DeviceGroup<'a> {
        DeviceGroup { all: self.all, devices: self.devices.clone() }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }
}

/// Devices that a model uses together.
struct DeviceGroup<'a> {
    all: &'a [Device],
    devices: Vec<&'a Device>,
}

/// A placement, or how much memory it lacks; without a number if there is no device for it.
type Trial = Result<Placement, Option<Shortfall>>;

/// The memory that a placement lacks.
#[derive(Debug)]
struct Shortfall {
    /// Bytes over all devices.
    missing: u64,
    /// The largest single shortage.
    worst: MemoryShortage,
    /// The cache of the placement.
    cache: CacheShape,
    /// What it takes of each device, if more than one computes.
    spread: Option<String>,
}

/// A search for a placement, which records the smallest shortage.
pub(crate) struct PlacementSearch<'a> {
    pub(crate) footprint: &'a ModelFootprint,
    limits: FitLimits,
    caches: CacheShapes,
    nearest: Option<Shortfall>,
}

impl<'a> PlacementSearch<'a> {
    pub(crate) fn new(footprint: &'a ModelFootprint, limits: FitLimits, caches: CacheShapes) -> Self {
        Self { footprint, limits, caches, nearest: None }
    }

    /// As its settings say, with the largest cache.
    pub(crate) fn whole(&mut self, set: &DeviceSet<'_>) -> Option<Placement> {
        let trial = self.placed(set, self.arrangement(self.caches.largest()));
        self.record(trial)
    }

    /// As its settings say, with the largest cache that fits.
    pub(crate) fn smaller_cache(&mut self, set: &DeviceSet<'_>) -> Option<Placement> {
        let trial = self.with_largest_cache(|cache| self.placed(set, self.arrangement(cache)));
        self.record(trial)
    }

    /// With less than its settings say, the least loss first: a smaller cache, experts on the CPU, layers on the CPU, of which at
    /// least `min_items` stay on the devices.
    pub(crate) fn reduced(&mut self, set: &DeviceSet<'_>, min_items: usize) -> Option<Placement> {
        if let Some(placement) = self.smaller_cache(set) {
            return Some(placement);
        }
        let groups = self.groups(set);
        if !self.limits.may_mix || host(set.all).is_none() || groups.is_empty() {
            return None;
        }
        if self.footprint.experts == ExpertPlacement::Auto && self.footprint.has_experts() {
            let trial = self.with_largest_cache(|cache| self.with_fewest_cpu_experts(&groups, cache));
            if let Some(placement) = self.record(trial) {
                return Some(placement);
            }
        }
        if self.footprint.gpu_layers != GpuLayers::Auto {
            return None;
        }
        let trial = self.with_largest_cache(|cache| self.with_most_layers(&groups, min_items, cache));
        self.record(trial)
    }

    /// Why nothing was found on these devices, of which some memory may have been kept free.
    pub(crate) fn error(self, devices: &[Device]) -> PlacementError {
        let model = self.footprint.model.clone();
        let Some(Shortfall { worst: mut shortage, cache, spread, .. }) = self.nearest else {
            let reason = "no device can run it: `artel devices` shows those of this machine".to_owned();
            return PlacementError::Impossible { model, reason };
        };
        let free = devices.iter().find(|device| device.name == shortage.device).map_or(0, |device| device.free);
        if shortage.cache_share.is_none() {
            shortage.reserve = free.saturating_sub(shortage.free);
        }
        PlacementError::InsufficientMemory {
            model,
            shortage: Box::new(shortage),
            cache: (cache != self.footprint.wanted_cache()).then_some(cache),
            spread,
            remedies: Vec::new(),
        }
    }

    fn record(&mut self, trial: Trial) -> Option<Placement> {
        match trial {
            Ok(placement) => Some(placement),
            Err(shortfall) => {
                self.nearest = nearer(self.nearest.take(), shortfall);
                None
            }
        }
    }

    /// What the settings put on the devices.
    fn arrangement(&self, cache: CacheShape) -> Arrangement {
        let items = self.footprint.items();
        Arrangement {
            device_items: match self.footprint.gpu_layers {
                GpuLayers::Auto | GpuLayers::Count(0) => items,
                GpuLayers::Count(count) => items.min(count as usize),
            },
            cpu_expert_layers: match self.footprint.experts {
                ExpertPlacement::Auto => 0,
                ExpertPlacement::Cpu => self.footprint.layers.len(),
            },
            cache,
        }
    }

    /// The trial with the largest cache that succeeds, or the failure with the smallest.
    fn with_largest_cache(&self, trial: impl Fn(CacheShape) -> Trial) -> Trial {
        let found = self.caches.largest_of(|cache| trial(cache).is_ok());
        trial(found.unwrap_or_else(|| self.caches.smallest()))
    }

    fn placed(&self, set: &DeviceSet<'_>, arrangement: Arrangement) -> Trial {
        match set.takes {
            DevicesTaken::One => self.one(set, arrangement),
            DevicesTaken::All => self.together(&set.group(), arrangement),
            DevicesTaken::OneOrSeveral => self
                .one(set, arrangement)
                .or_else(|shortfall| self.several(set, arrangement).map_err(|other| nearer(shortfall, other))),
        }
    }

    /// The placement on one of these alone: the one with the least memory left over, the CPU last.
    fn one(&self, set: &DeviceSet<'_>, arrangement: Arrangement) -> Trial {
        let mut shortfall = None;
        let mut best: Option<((bool, u64), Placement)> = None;
        for device in &set.devices {
            match self.together(&DeviceGroup { all: set.all, devices: vec![device] }, arrangement) {
                Ok(placement) => {
                    let rank = (device.kind == DeviceKind::Cpu, device.free - placement.parts[0].bytes());
                    if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                        best = Some((rank, placement));
                    }
                }
                Err(other) => shortfall = nearer(shortfall, other),
            }
        }
        best.map(|(_, placement)| placement).ok_or(shortfall)
    }

    /// The placement on the fewest of these together, those with the most free memory.
    fn several(&self, set: &DeviceSet<'_>, arrangement: Arrangement) -> Trial {
        let chosen = &set.devices;
        if self.footprint.split == SplitMode::None {
            return Err(None);
        }
        let mut order: Vec<usize> = (0..chosen.len()).collect();
        order.sort_by_key(|index| std::cmp::Reverse(chosen[*index].free));
        let mut shortfall = None;
        for count in 2..=chosen.len() {
            let mut these = order[..count].to_vec();
            these.sort_unstable();
            let these: Vec<&Device> = these.into_iter().map(|index| chosen[index]).collect();
            if self.footprint.split == SplitMode::Row && these.iter().any(|device| device.kind == DeviceKind::Rpc) {
                continue;
            }
            match self.together(&DeviceGroup { all: set.all, devices: these }, arrangement) {
                Ok(placement) => return Ok(placement),
                Err(other) => shortfall = nearer(shortfall, other),
            }
        }
        Err(shortfall)
    }

    /// The placement on all of these together.
    fn together(&self, group: &DeviceGroup<'_>, arrangement: Arrangement) -> Trial {
        let mut shortfall = None;
        for placement in self.layouts(group, arrangement) {
            match self.shortfall(&placement, group.all) {
                None => return Ok(placement),
                other => shortfall = nearer(shortfall, other),
            }
        }
        Err(shortfall)
    }

    /// The distributions over all of these, the preferred one first: by `tensor_split`, or by free memory and by filling each in
    /// order.
    fn layouts(&self, group: &DeviceGroup<'_>, arrangement: Arrangement) -> Vec<Placement> {
        let (footprint, chosen, host) = (self.footprint, group.devices.as_slice(), host(group.all));
        let layouts = match (&footprint.tensor_split, chosen) {
            (_, [device]) => return vec![layout::alone(footprint, arrangement, device, host)],
            (Some(shares), _) => vec![Some(Layout::new(chosen, shares.clone()))],
            (None, _) => {
                let by_memory = layout::by_free_memory(footprint, arrangement, chosen);
                // If no device has the memory for buffers alone, any distribution shows what is missing.
                let by_memory = by_memory.or_else(|| Some(Layout::new(chosen, vec![1.0; chosen.len()])));
                vec![by_memory, layout::filled(footprint, arrangement, chosen)]
            }
        };
        layouts.into_iter().flatten().map(|layout| layout::spread(footprint, arrangement, &layout, host)).collect()
    }

    /// The devices among which layers may be divided with the CPU.
    fn groups<'d>(&self, set: &DeviceSet<'d>) -> Vec<DeviceGroup<'d>> {
        let computes =
            |device: &&&Device| matches!(device.kind, DeviceKind::Gpu | DeviceKind::IntegratedGpu | DeviceKind::Rpc);
        let group = |devices| DeviceGroup { all: set.all, devices };
        let devices: Vec<&Device> = set.devices.iter().filter(computes).copied().collect();
        let singles = devices.iter().map(|device| group(vec![*device]));
        let is_row = self.footprint.split == SplitMode::Row;
        let together = (self.footprint.split != SplitMode::None
            && devices.len() > 1
            && !(is_row && devices.iter().any(|device| device.kind == DeviceKind::Rpc)))
        .then(|| group(devices.clone()));
        match set.takes {
            DevicesTaken::All => together.into_iter().collect(),
            DevicesTaken::One => singles.collect(),
            DevicesTaken::OneOrSeveral => singles.chain(together).collect(),
        }
    }

    /// The experts of as few layers as needed on the CPU.
    fn with_fewest_cpu_experts(&self, groups: &[DeviceGroup<'_>], cache: CacheShape) -> Trial {
        let (base, layers) = (self.arrangement(cache), self.footprint.layers.len());
        let with = |count: usize| Arrangement { cpu_expert_layers: count, ..base };
        let least = |group: &DeviceGroup<'_>| {
            let (mut low, mut high) = (1, layers);
            while low < high {
                let middle = low + (high - low) / 2;
                if self.holds(group, with(middle)) { high = middle } else { low = middle + 1 }
            }
            self.together(group, with(low))
        };
        best_of(groups.iter().map(least), |placement| (placement.cpu_expert_layers, placement.parts.len()))
    }

    /// As many of the last layers as fit on the devices, and the experts of all on the CPU.
    fn with_most_layers(&self, groups: &[DeviceGroup<'_>], min_items: usize, cache: CacheShape) -> Trial {
        let cpu_expert_layers = if self.footprint.has_experts() { self.footprint.layers.len() } else { 0 };
        let with = |count: usize| Arrangement { device_items: count, cpu_expert_layers, cache };
        let most = |group: &DeviceGroup<'_>| {
            let (mut low, mut high) = (min_items.max(1), self.footprint.items() - 1);
            if low > high {
                return Err(None);
            }
            while low < high {
                let middle = low + (high - low).div_ceil(2);
                if self.holds(group, with(middle)) { low = middle } else { high = middle - 1 }
            }
            // What the devices themselves lack says nothing of a model that goes to the CPU for the most part.
            if self.holds(group, with(low)) { self.together(group, with(low)) } else { Err(None) }
        };
        let rank = |placement: &Placement| (std::cmp::Reverse(placement.gpu_layers), placement.parts.len());
        best_of(groups.iter().map(most), rank)
    }

    /// Whether these devices, without the machine's memory, hold their part.
    fn holds(&self, group: &DeviceGroup<'_>, arrangement: Arrangement) -> bool {
        let free = |name: &str| group.devices.iter().find(|device| device.name == name).map_or(0, |device| device.free);
        let fits = |placement: &Placement| {
            placement.parts.iter().all(|part| {
                let free = free(&part.device);
                part.bytes() <= free && self.keeps_share(part.kv_bytes, part.bytes(), free)
            })
        };
        self.layouts(group, arrangement).iter().any(fits)
    }

    /// Whether a cache among these bytes on a device stays within the share that the settings give it.
    fn keeps_share(&self, cache: u64, bytes: u64, free: u64) -> bool {
        cache <= self.cache_limit(bytes - cache, free)
    }

    /// The most bytes of cache on a device with these other bytes.
    fn cache_limit(&self, others: u64, free: u64) -> u64 {
        let Some(percent) = self.percent() else { return u64::MAX };
        let share = u128::from(free.saturating_sub(others)) * u128::from(percent.min(100)) / 100;
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// The share that its cache may take of the memory beside the rest.
    fn percent(&self) -> Option<u8> {
        match self.footprint.cache_size {
            CacheSize::Percent(percent) => Some(percent),
            CacheSize::Fitting | CacheSize::Tokens(_) => None,
        }
    }

    /// The memory that a placement lacks.
    fn shortfall(&self, placement: &Placement, devices: &[Device]) -> Option<Shortfall> {
        let needs = demand(&placement.bytes(), devices);
        let caches = placement.parts.iter().map(|part| (&part.device, part.kv_bytes));
        let caches: Vec<(&String, u64)> =
            caches.chain(placement.host.iter().map(|host| (&host.device, host.kv_bytes))).collect();
        let shortage = |(device, needs): (&Device, u64)| {
            let cache = caches.iter().find(|(name, _)| **name == device.name).map_or(0, |(_, bytes)| *bytes);
            let others = needs.saturating_sub(cache);
            // What is beyond the share of the cache is as missing as what is beyond the memory.
            let limit = self.cache_limit(others, device.free);
            let is_share = cache.saturating_sub(limit) > needs.saturating_sub(device.free);
            let (needed, free) = if is_share { (cache, limit) } else { (needs, device.free) };
            let cache_share = self.percent().filter(|_| is_share);
            (needed > free).then(|| MemoryShortage {
                device: device.name.clone(),
                needed,
                free,
                reserve: 0,
                cache_share,
            })
        };
        let short: Vec<MemoryShortage> = devices.iter().zip(needs).filter_map(shortage).collect();
        let missing = short.iter().map(MemoryShortage::missing).fold(0, u64::saturating_add);
        let worst = short.into_iter().max_by_key(MemoryShortage::missing)?;
        let spread = (placement.parts.len() > 1 || placement.is_mixed()).then(|| placement.summary());
        Some(Shortfall { missing, worst, cache: placement.cache(), spread })
    }
}

/// The smaller one.
fn nearer(one: Option<Shortfall>, other: Option<Shortfall>) -> Option<Shortfall> {
    match (one, other) {
        (Some(one), Some(other)) if other.missing < one.missing => Some(other),
        (None, other) => other,
        (one, _) => one,
    }
}

/// The trial of the lowest rank among those that succeed, the first of several; otherwise the nearest shortfall.
fn best_of<R: Ord>(trials: impl Iterator<Item = Trial>, rank: impl Fn(&Placement) -> R) -> Trial {
    let (mut best, mut shortfall): (Option<Placement>, _) = (None, None);
    for trial in trials {
        match trial {
            Ok(placement) if best.as_ref().is_none_or(|best| rank(&placement) < rank(best)) => best = Some(placement),
            Ok(_) => {}
            Err(other) => shortfall = nearer(shortfall, other),
        }
    }
    best.ok_or(shortfall)
}

//! Where one model is placed: which devices are tried, in which order.

use artel_model::{CacheSize, DeviceKind, ExpertPlacement, GpuLayers, SplitMode};

use crate::cache_shapes::CacheShapes;
use crate::device::Device;
use crate::error::PlacementError;
use crate::footprint::{DeviceChoice, ModelFootprint};
use crate::limits::FitLimits;
use crate::placement::Placement;
use crate::reason;
use crate::search::{DeviceSet, DevicesTaken, PlacementSearch, with_reserve};

/// The smallest part of a model, in layers of 1, that goes to a GPU by itself while the CPU has the memory for all of it: less
/// would hardly be faster, and takes memory that another model may need.
const MIN_DEVICE_SHARE_DIVISOR: usize = 8;

/// The fewest layers, the output among them, that are worth a GPU.
pub(crate) fn least_device_items(footprint: &ModelFootprint) -> usize {
    footprint.items().div_ceil(MIN_DEVICE_SHARE_DIVISOR)
}

/// The placement of a model as [`place`](crate::place) finds it. Its error names no remedies.
pub(crate) fn fit(
    footprint: &ModelFootprint,
    devices: &[Device],
    limits: FitLimits,
) -> Result<Placement, PlacementError> {
    if footprint.experts == ExpertPlacement::Cpu && !footprint.has_experts() {
        return refuse(footprint, "`experts: cpu`, but the model has no experts; leave `experts` out".to_owned());
    }
    let Some(caches) = CacheShapes::of(footprint, limits.least_cache) else {
        let tokens = match footprint.cache_size {
            CacheSize::Tokens(tokens) => tokens,
            CacheSize::Fitting | CacheSize::Percent(_) => unreachable!("only a number of tokens excludes every cache"),
        };
        let least = CacheShapes::of_any_size(footprint, limits.least_cache).smallest();
        let model = footprint.model.clone();
        return Err(PlacementError::CacheTooSmall { model, tokens, least, remedies: Vec::new() });
    };
    let search = PlacementSearch::new(footprint, limits, caches);
    match &footprint.devices {
        DeviceChoice::Auto => anywhere(search, devices),
        DeviceChoice::Pinned(names) => pinned(search, names, devices),
    }
}

fn refuse<T>(footprint: &ModelFootprint, reason: String) -> Result<T, PlacementError> {
    Err(PlacementError::Impossible { model: footprint.model.clone(), reason })
}

fn pinned(mut search: PlacementSearch<'_>, names: &[String], devices: &[Device]) -> Result<Placement, PlacementError> {
    let footprint = search.footprint;
    let chosen: Vec<&Device> = names.iter().map(|name| named(footprint, name, devices)).collect::<Result<_, _>>()?;
    check(footprint, &chosen)?;
    let takes = match footprint.split {
        SplitMode::None => DevicesTaken::One,
        _ if chosen.len() == 1 => DevicesTaken::One,
        _ => DevicesTaken::All,
    };
    let found = search.whole(&DeviceSet::of_names(devices, names, takes));
    let found = found.or_else(|| search.reduced(&DeviceSet::of_names(&with_reserve(devices), names, takes), 1));
    let Some(mut placement) = found else { return Err(search.error(devices)) };
    placement.reason = reason::of_pinned(footprint, devices, &placement, names);
    Ok(placement)
}

fn named<'a>(footprint: &ModelFootprint, name: &str, devices: &'a [Device]) -> Result<&'a Device, PlacementError> {
    devices
        .iter()
        .find(|device| device.name == name)
        .ok_or_else(|| PlacementError::unknown(&footprint.model, name, devices))
}

/// Checks that the pins, the split, the shares and the number of layers are consistent.
fn check(footprint: &ModelFootprint, chosen: &[&Device]) -> Result<(), PlacementError> {
    let names: Vec<&str> = chosen.iter().map(|device| device.name.as_str()).collect();
    if let Some((_, name)) = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
        return refuse(footprint, format!("`devices` names {name} twice"));
    }
    let spread = chosen.len() > 1 && footprint.split != SplitMode::None;
    let cpu = chosen.iter().find(|device| device.kind == DeviceKind::Cpu);
    if spread && let Some(cpu) = cpu {
        let reason = format!(
            "a model cannot be split over {0} and other devices; name the others, and {0} gets the layers that `gpu_layers` \
             leaves",
            cpu.name
        );
        return refuse(footprint, reason);
    }
    match footprint.gpu_layers {
        GpuLayers::Count(0) if chosen.iter().any(|device| device.kind != DeviceKind::Cpu) => {
            return refuse(footprint, "`gpu_layers: 0` with `devices`; use `devices: [CPU]`".to_owned());
        }
        GpuLayers::Count(count @ 1..) if let Some(cpu) = cpu => {
            let reason = format!(
                "`gpu_layers: {count}` with `devices` that include {0}; leave {0} or `gpu_layers` out",
                cpu.name
            );
            return refuse(footprint, reason);
        }
        _ => {}
    }
    let no_rows = |device: &&&Device| matches!(device.kind, DeviceKind::Rpc | DeviceKind::IntegratedGpu);
    if spread
        && footprint.split == SplitMode::Row
        && let Some(device) = chosen.iter().find(no_rows)
    {
        return refuse(footprint, format!("{} does not support `split: row`; use `split: layer`", device.name));
    }
    match &footprint.tensor_split {
        Some(shares) if shares.len() != chosen.len() => refuse(
            footprint,
            format!(
                "`tensor_split` needs one number for each of the {} names in `devices`, and has {}",
                chosen.len(),
                shares.len()
            ),
        ),
        Some(shares) if shares.iter().any(|share| !share.is_finite() || *share < 0.0) => {
            refuse(footprint, "`tensor_split` has a number that is negative or not finite".to_owned())
        }
        Some(shares) if shares.iter().sum::<f32>() <= 0.0 || !shares.iter().sum::<f32>().is_finite() => {
            refuse(footprint, "the numbers in `tensor_split` add up to 0 or overflow".to_owned())
        }
        _ => Ok(()),
    }
}

fn anywhere(mut search: PlacementSearch<'_>, devices: &[Device]) -> Result<Placement, PlacementError> {
    let footprint = search.footprint;
    if footprint.tensor_split.is_some() {
        let reason =
            "`tensor_split` without `devices`: its numbers belong to no device; name the devices, or leave it out";
        return refuse(footprint, reason.to_owned());
    }
    let reserved = with_reserve(devices);
    let (whole, fitted) = (Tiers::of(devices), Tiers::of(&reserved));
    let share = least_device_items(footprint);
    let found = match footprint.gpu_layers {
        GpuLayers::Auto => {
            let found = search.whole(&whole.gpus).or_else(|| search.reduced(&fitted.gpus, share));
            let found = found.or_else(|| whole.others().into_iter().find_map(|set| search.whole(set)));
            let found = found.or_else(|| fitted.others().into_iter().find_map(|set| search.smaller_cache(set)));
            found.or_else(|| search.reduced(&fitted.all, 1))
        }
        GpuLayers::Count(0) => search.whole(&whole.cpu).or_else(|| search.smaller_cache(&fitted.cpu)),
        GpuLayers::Count(count) if whole.has_only_cpu() => {
            let reason =
                format!("`gpu_layers: {count}`, but there is no device other than the CPU; leave `gpu_layers` out");
            return refuse(footprint, reason);
        }
        GpuLayers::Count(_) => {
            let found = whole.without_cpu().into_iter().find_map(|set| search.whole(set));
            found.or_else(|| fitted.without_cpu().into_iter().find_map(|set| search.reduced(set, 1)))
        }
    };
    let Some(mut placement) = found else { return Err(search.error(devices)) };
    placement.reason = reason::of_any(footprint, devices, &placement);
    Ok(placement)
}

/// The devices of a machine, in the order in which a model that is not pinned tries them.
struct Tiers<'a> {
    gpus: DeviceSet<'a>,
    integrated: DeviceSet<'a>,
    cpu: DeviceSet<'a>,
    remote: DeviceSet<'a>,
    /// GPUs and devices of other machines.
    all: DeviceSet<'a>,
}

impl<'a> Tiers<'a> {
    fn of(devices: &'a [Device]) -> Self {
        let one = |kind| DeviceSet::of_kinds(devices, &[kind], DevicesTaken::One);
        let several = |kinds: &[DeviceKind]| DeviceSet::of_kinds(devices, kinds, DevicesTaken::OneOrSeveral);
        Self {
            gpus: several(&[DeviceKind::Gpu]),
            integrated: one(DeviceKind::IntegratedGpu),
            cpu: one(DeviceKind::Cpu),
            remote: several(&[DeviceKind::Rpc]),
            all: several(&[DeviceKind::Gpu, DeviceKind::Rpc]),
        }
    }

    /// All but the GPUs alone.
    fn others(&self) -> [&DeviceSet<'a>; 4] {
        [&self.integrated, &self.cpu, &self.remote, &self.all]
    }

    /// All but the CPU.
    fn without_cpu(&self) -> [&DeviceSet<'a>; 4] {
        [&self.gpus, &self.integrated, &self.remote, &self.all]
    }

    fn has_only_cpu(&self) -> bool {
        self.without_cpu().into_iter().all(DeviceSet::is_empty)
    }
}

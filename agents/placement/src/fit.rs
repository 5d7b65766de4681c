//! The search for a placement of one model.

use artel_model::{DeviceKind, SplitMode, format_bytes};

use crate::device::{Device, demand, host};
use crate::error::{MemoryShortage, PlacementError, list};
use crate::footprint::{DeviceChoice, ModelFootprint};
use crate::layout::{self, Layout};
use crate::placement::{Placement, PlacementPart};

/// The placement of a model as [`place`](crate::place) finds it. Its error names no remedies.
pub(crate) fn fit(footprint: &ModelFootprint, devices: &[Device]) -> Result<Placement, PlacementError> {
    match &footprint.devices {
        DeviceChoice::Auto => anywhere(footprint, devices),
        DeviceChoice::Pinned(names) => pinned(footprint, names, devices),
    }
}

fn pinned(footprint: &ModelFootprint, names: &[String], devices: &[Device]) -> Result<Placement, PlacementError> {
    let chosen: Vec<&Device> = names.iter().map(|name| named(footprint, name, devices)).collect::<Result<_, _>>()?;
    check(footprint, &chosen)?;
    let mut search = PlacementSearch::new(footprint, devices);
    let found = match footprint.split {
        SplitMode::None => search.one(&chosen),
        _ if chosen.len() == 1 => search.one(&chosen),
        _ => search.all(&chosen),
    };
    let Some(mut placement) = found else { return Err(search.error()) };
    let free = |part: &PlacementPart| {
        let device = devices.iter().find(|device| device.name == part.device);
        format!("{} of {} free", format_bytes(part.bytes()), format_bytes(device.map_or(0, |device| device.free)))
    };
    placement.reason = match placement.parts.as_slice() {
        [part] => format!("pinned to {}: {}", list(names), free(part)),
        parts => {
            let part = |part: &PlacementPart| format!("{} takes {}", part.device, free(part));
            let by = if footprint.tensor_split.is_some() { "`tensor_split`" } else { "free memory" };
            let each = parts.iter().map(part).collect::<Vec<_>>().join(", ");
            format!("pinned to {}, split by {by}: {each}", list(names))
        }
    };
    Ok(placement)
}

fn named<'a>(footprint: &ModelFootprint, name: &str, devices: &'a [Device]) -> Result<&'a Device, PlacementError> {
    devices
        .iter()
        .find(|device| device.name == name)
        .ok_or_else(|| PlacementError::unknown(&footprint.model, name, devices))
}

/// Checks that the pins, the split and the shares are consistent.
fn check(footprint: &ModelFootprint, chosen: &[&Device]) -> Result<(), PlacementError> {
    let refuse = |reason: String| Err(PlacementError::Impossible { model: footprint.model.clone(), reason });
    let names: Vec<&str> = chosen.iter().map(|device| device.name.as_str()).collect();
    if let Some((_, name)) = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
        return refuse(format!("`devices` names {name} twice"));
    }
    let spread = chosen.len() > 1 && footprint.split != SplitMode::None;
    if spread && let Some(cpu) = chosen.iter().find(|device| device.kind == DeviceKind::Cpu) {
        return refuse(format!("a model cannot be split over {} and other devices", cpu.name));
    }
    let no_rows = |device: &&&Device| matches!(device.kind, DeviceKind::Rpc | DeviceKind::IntegratedGpu);
    if spread
        && footprint.split == SplitMode::Row
        && let Some(device) = chosen.iter().find(no_rows)
    {
        return refuse(format!("{} does not support `split: row`; use `split: layer`", device.name));
    }
    match &footprint.tensor_split {
        Some(shares) if shares.len() != chosen.len() => {
            refuse(format!("`tensor_split` has {} numbers and `devices` has {} names", shares.len(), chosen.len()))
        }
        Some(shares) if shares.iter().any(|share| !share.is_finite() || *share < 0.0) => {
            refuse("`tensor_split` has a number that is negative or not finite".to_owned())
        }
        Some(shares) if shares.iter().sum::<f32>() <= 0.0 || !shares.iter().sum::<f32>().is_finite() => {
            refuse("the numbers in `tensor_split` add up to 0 or overflow".to_owned())
        }
        _ => Ok(()),
    }
}

fn anywhere(footprint: &ModelFootprint, devices: &[Device]) -> Result<Placement, PlacementError> {
    if footprint.tensor_split.is_some() {
        let reason = "`tensor_split` without `devices`: its numbers belong to no device".to_owned();
        return Err(PlacementError::Impossible { model: footprint.model.clone(), reason });
    }
    let of = |kinds: &[DeviceKind]| devices.iter().filter(|device| kinds.contains(&device.kind)).collect::<Vec<_>>();
    let gpus = of(&[DeviceKind::Gpu]);
    let tiers = [
        (gpus.clone(), true),
        (of(&[DeviceKind::IntegratedGpu]), false),
        (of(&[DeviceKind::Cpu]), false),
        (of(&[DeviceKind::Rpc]), true),
        (of(&[DeviceKind::Gpu, DeviceKind::Rpc]), true),
    ];
    let mut search = PlacementSearch::new(footprint, devices);
    for (tier, together) in &tiers {
        let found = search.one(tier).or_else(|| if *together { search.several(tier) } else { None });
        if let Some(mut placement) = found {
            placement.reason = search.reason(&placement, &gpus);
            return Ok(placement);
        }
    }
    Err(search.error())
}

/// A search for a placement, which records the smallest shortage.
struct PlacementSearch<'a> {
    footprint: &'a ModelFootprint,
    devices: &'a [Device],
    /// The smallest total shortage, and its largest single one.
    nearest: Option<(u64, MemoryShortage)>,
}

impl<'a> PlacementSearch<'a> {
    fn new(footprint: &'a ModelFootprint, devices: &'a [Device]) -> Self {
        Self { footprint, devices, nearest: None }
    }

    /// The placement on one of these alone: the one with the least memory left over, the CPU last.
    fn one(&mut self, chosen: &[&Device]) -> Option<Placement> {
        let fits = chosen.iter().filter_map(|device| {
            let placement = self.accept(layout::alone(self.footprint, device, host(self.devices)))?;
            Some(((device.kind == DeviceKind::Cpu, device.free - placement.parts[0].bytes()), placement))
        });
        fits.min_by_key(|(last, _)| *last).map(|(_, placement)| placement)
    }

    /// The placement on the fewest of these together, those with the most free memory.
    fn several(&mut self, chosen: &[&Device]) -> Option<Placement> {
        if self.footprint.split == SplitMode::None {
            return None;
        }
        let mut order: Vec<usize> = (0..chosen.len()).collect();
        order.sort_by_key(|index| std::cmp::Reverse(chosen[*index].free));
        (2..=chosen.len()).find_map(|count| {
            let mut these = order[..count].to_vec();
            these.sort_unstable();
            let these: Vec<&Device> = these.into_iter().map(|index| chosen[index]).collect();
            if self.footprint.split == SplitMode::Row && these.iter().any(|device| device.kind == DeviceKind::Rpc) {
                return None;
            }
            self.all(&these)
        })
    }

    /// The placement on all of these together: by `tensor_split`, or by free memory, or else by filling each in order.
    fn all(&mut self, chosen: &[&Device]) -> Option<Placement> {
        let host = host(self.devices);
        let layouts: Vec<Layout> = match &self.footprint.tensor_split {
            Some(shares) => vec![Layout::new(chosen, shares.clone())],
            None => [layout::by_free_memory(self.footprint, chosen), layout::filled(self.footprint, chosen)]
                .into_iter()
                .flatten()
                .collect(),
        };
        layouts.into_iter().find_map(|layout| self.accept(layout::spread(self.footprint, &layout, host)))
    }

    /// The placement, if no memory is missing.
    fn accept(&mut self, placement: Placement) -> Option<Placement> {
        let needs = demand(&placement.bytes(), self.devices);
        let short = self.devices.iter().zip(needs).filter_map(|(device, needs)| MemoryShortage::of(device, needs));
        let short: Vec<MemoryShortage> = short.collect();
        let missing = short.iter().map(MemoryShortage::missing).fold(0, u64::saturating_add);
        let Some(worst) = short.into_iter().max_by_key(MemoryShortage::missing) else { return Some(placement) };
        if self.nearest.as_ref().is_none_or(|(least, _)| missing < *least) {
            self.nearest = Some((missing, worst));
        }
        None
    }

    fn error(self) -> PlacementError {
        let model = self.footprint.model.clone();
        match self.nearest {
            Some((_, shortage)) => PlacementError::InsufficientMemory { model, shortage, remedies: Vec::new() },
            None => PlacementError::Impossible { model, reason: "no device can run it".to_owned() },
        }
    }

    /// Why this placement was chosen.
    fn reason(&self, placement: &Placement, gpus: &[&Device]) -> String {
        let kind = |part: &PlacementPart| {
            self.devices.iter().find(|device| device.name == part.device).map(|device| device.kind)
        };
        let free: u64 = placement.parts.iter().filter_map(|part| self.free(&part.device)).sum();
        let usage = format!(
            "{} of {} free",
            format_bytes(placement.parts.iter().map(PlacementPart::bytes).sum()),
            format_bytes(free)
        );
        let no_gpu = match self.shortages(gpus) {
            None => "there is no GPU".to_owned(),
            Some(shortages) => format!("it fits on no GPU: {shortages}"),
        };
        match placement.parts.as_slice() {
            [part] if kind(part) == Some(DeviceKind::Gpu) && gpus.len() == 1 => format!("it fits on the GPU: {usage}"),
            [part] if kind(part) == Some(DeviceKind::Gpu) => {
                format!("of the GPUs that it fits on, the fullest: {usage}")
            }
            [part] if kind(part) == Some(DeviceKind::Rpc) => format!("it fits on no device of this machine: {usage}"),
            [_] => format!("{no_gpu}; {usage}"),
            parts if parts.iter().any(|part| kind(part) == Some(DeviceKind::Rpc)) => {
                format!("it fits on no machine alone; split by free memory: {}", placement.summary())
            }
            _ => format!(
                "it fits on no GPU alone: {}; split by free memory: {}",
                self.shortages(gpus).unwrap_or_default(),
                placement.summary()
            ),
        }
    }

    fn free(&self, name: &str) -> Option<u64> {
        self.devices.iter().find(|device| device.name == name).map(|device| device.free)
    }

    /// The shortage of each of them for the whole model.
    fn shortages(&self, chosen: &[&Device]) -> Option<String> {
        let shortage = |device: &&Device| {
            let part = layout::alone(self.footprint, device, host(self.devices)).parts.remove(0);
            let missing = part.bytes().saturating_sub(device.free);
            match missing {
                0 => format!("{} takes too much of the machine's memory", device.name),
                missing => format!("{} lacks {} of {}", device.name, format_bytes(missing), format_bytes(part.bytes())),
            }
        };
        let shortages: Vec<String> = chosen.iter().map(shortage).collect();
        if shortages.is_empty() { None } else { Some(shortages.join(", ")) }
    }
}

//! Why a placement was chosen, in words and figures.

use artel_model::{CacheSize, DeviceKind, ExpertPlacement, GpuLayers, format_bytes};

use crate::cache_shapes::CacheShapes;

use crate::device::{Device, host};
use crate::footprint::ModelFootprint;
use crate::layout::{self, Arrangement};
use crate::phrase::list;
use crate::placement::{Placement, PlacementPart};

/// The reason for a placement on pinned devices.
pub(crate) fn of_pinned(
    footprint: &ModelFootprint,
    devices: &[Device],
    placement: &Placement,
    names: &[String],
) -> String {
    let free = |part: &PlacementPart| {
        format!("{} of {} free", format_bytes(part.bytes()), format_bytes(free_bytes(devices, &part.device)))
    };
    let mut on_devices = match placement.parts.as_slice() {
        [part] => format!("pinned to {}: {}", list(names), free(part)),
        parts => {
            let part = |part: &PlacementPart| format!("{} takes {}", part.device, free(part));
            let by = if footprint.tensor_split.is_some() { "`tensor_split`" } else { "free memory" };
            let each = parts.iter().map(part).collect::<Vec<_>>().join(", ");
            format!("pinned to {}, split by {by}: {each}", list(names))
        }
    };
    if let Some(host) = placement.host.as_ref().filter(|_| placement.is_mixed()) {
        let free = format_bytes(free_bytes(devices, &host.device));
        on_devices.push_str(&format!(", {} takes {} of {free} free", host.device, format_bytes(host.bytes())));
    }
    format!("{on_devices}{}", details(footprint, placement))
}

/// The reason for a placement on devices of the planner's choice.
pub(crate) fn of_any(footprint: &ModelFootprint, devices: &[Device], placement: &Placement) -> String {
    let gpus: Vec<&Device> = devices.iter().filter(|device| device.kind == DeviceKind::Gpu).collect();
    let kind =
        |part: &PlacementPart| devices.iter().find(|device| device.name == part.device).map(|device| device.kind);
    let free: u64 = placement.parts.iter().map(|part| free_bytes(devices, &part.device)).fold(0, u64::saturating_add);
    let used = placement.parts.iter().map(PlacementPart::bytes).fold(0, u64::saturating_add);
    let usage = format!("{} of {} free", format_bytes(used), format_bytes(free));
    let no_gpu = written(footprint, placement).unwrap_or_else(|| match shortages(footprint, devices, &gpus) {
        None => "there is no GPU".to_owned(),
        Some(shortages) => format!("it fits on no GPU: {shortages}"),
    });
    let on_devices = match placement.parts.as_slice() {
        _ if placement.is_mixed() => format!("{no_gpu}; {}", placement.summary()),
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
            shortages(footprint, devices, &gpus).unwrap_or_default(),
            placement.summary()
        ),
    };
    format!("{on_devices}{}", details(footprint, placement))
}

/// What is not as it is for most models.
fn details(footprint: &ModelFootprint, placement: &Placement) -> String {
    let stays = if footprint.is_kept { "; it stays loaded: `keep: forever`" } else { "" };
    format!("{}{}{stays}", on_cpu(footprint, placement), cache(footprint, placement))
}

/// The setting by which the CPU computes a part of a model, if it is one.
fn written(footprint: &ModelFootprint, placement: &Placement) -> Option<String> {
    match footprint.gpu_layers {
        GpuLayers::Count(count) if (count as usize) < footprint.items() => Some(format!("`gpu_layers: {count}`")),
        _ if footprint.experts == ExpertPlacement::Cpu && placement.gpu_layers.is_none() && placement.is_mixed() => {
            Some("`experts: cpu`".to_owned())
        }
        _ => None,
    }
}

fn free_bytes(devices: &[Device], name: &str) -> u64 {
    devices.iter().find(|device| device.name == name).map_or(0, |device| device.free)
}

/// What the CPU keeps of a model that other devices compute.
fn on_cpu(footprint: &ModelFootprint, placement: &Placement) -> String {
    let Some(host) = placement.host.as_ref().filter(|_| placement.is_mixed()) else { return String::new() };
    let mut said = Vec::new();
    if let Some(count) = placement.gpu_layers {
        let (items, on) = (footprint.items(), list(&placement.devices()));
        said.push(format!("the last {count} of {items} layers are on {on}, the others on {}", host.device));
    }
    match placement.cpu_expert_layers as usize {
        0 => {}
        count if count >= footprint.layers.len() => said.push(format!("all experts are on {}", host.device)),
        count => {
            let layers = footprint.layers.len();
            said.push(format!("the experts of the first {count} of {layers} layers are on {}", host.device));
        }
    }
    format!("; {}", said.join("; "))
}

/// That the cache is smaller than wanted, or than its setting allows.
fn cache(footprint: &ModelFootprint, placement: &Placement) -> String {
    let (wanted, given) = (footprint.wanted_cache(), placement.cache());
    let by = match footprint.cache_size {
        CacheSize::Tokens(tokens) if u64::from(tokens) > wanted.tokens() => {
            let most = wanted.tokens();
            return format!(
                "; its cache holds {given}, which are all {most} tokens that it can use of `cache: {{tokens: {tokens}}}`"
            );
        }
        CacheSize::Tokens(tokens) => format!(" by `cache: {{tokens: {tokens}}}`"),
        CacheSize::Percent(percent) => format!(" within `cache: {{share: {percent}%}}`"),
        CacheSize::Fitting => String::new(),
    };
    match given == wanted {
        true => String::new(),
        false => format!("; its cache holds {given} instead of {wanted}{by}"),
    }
}

/// The shortage of each of them for the whole model.
fn shortages(footprint: &ModelFootprint, devices: &[Device], chosen: &[&Device]) -> Option<String> {
    let shapes = CacheShapes::of(footprint, footprint.least_cache());
    let cache = shapes.map_or_else(|| footprint.wanted_cache(), |shapes| shapes.largest());
    let shortage = |device: &&Device| {
        let whole = Arrangement::whole(footprint, cache);
        let part = layout::alone(footprint, whole, device, host(devices)).parts.remove(0);
        let missing = part.bytes().saturating_sub(device.free);
        match missing {
            0 => format!("{} takes too much of the machine's memory", device.name),
            missing => format!("{} lacks {} of {}", device.name, format_bytes(missing), format_bytes(part.bytes())),
        }
    };
    let shortages: Vec<String> = chosen.iter().map(shortage).collect();
    if shortages.is_empty() { None } else { Some(shortages.join(", ")) }
}

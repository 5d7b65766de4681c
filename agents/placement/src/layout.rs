//! The distribution of layers over devices.
//!
//! Source: `llama_model_base::load_tensors` in llama.cpp. Shares are accumulated and divided by their sum in single precision;
//! layer `i` of `n` is placed on the first device whose bound is above `i / (n + 1)`, the output as if it were layer `n`.

use artel_model::{DeviceKind, SplitMode};

use crate::device::Device;
use crate::footprint::ModelFootprint;
use crate::placement::{Placement, PlacementPart};

/// Devices with a share each.
#[derive(Debug)]
pub(crate) struct Layout<'a> {
    devices: Vec<&'a Device>,
    shares: Vec<f32>,
}

impl<'a> Layout<'a> {
    /// With the given shares.
    pub(crate) fn new(devices: &[&'a Device], shares: Vec<f32>) -> Self {
        Self { devices: devices.to_vec(), shares }
    }

    /// With this many items, layers and then the output, on each device; devices without any are left out. Used as shares, the
    /// counts reproduce exactly these counts.
    fn of_counts(devices: &[&'a Device], counts: &[usize]) -> Self {
        let kept = devices.iter().zip(counts).filter(|(_, count)| **count > 0);
        let (devices, shares) = kept.map(|(device, count)| (*device, *count as f32)).unzip();
        Self { devices, shares }
    }
}

/// The number of `items` per share, calculated as in llama.cpp.
pub(crate) fn counts(shares: &[f32], items: usize) -> Vec<usize> {
    let mut bounds: Vec<f32> = shares.to_vec();
    for index in 1..bounds.len() {
        bounds[index] += bounds[index - 1];
    }
    let sum = bounds.last().copied().unwrap_or(0.0);
    bounds.iter_mut().for_each(|bound| *bound /= sum);
    let mut counts = vec![0; shares.len()];
    for item in 0..items {
        let index = bounds.partition_point(|bound| *bound <= item as f32 / items as f32);
        counts[index.min(shares.len() - 1)] += 1;
    }
    counts
}

/// Shares by free memory, less the compute buffers.
pub(crate) fn by_free_memory<'a>(footprint: &ModelFootprint, devices: &[&'a Device]) -> Option<Layout<'a>> {
    let shares: Vec<f32> =
        devices.iter().map(|device| device.free.saturating_sub(footprint.buffer_bytes()) as f32).collect();
    let any = shares.iter().any(|share| *share > 0.0);
    any.then(|| Layout::of_counts(devices, &counts(&shares, footprint.layers.len() + 1)))
}

/// Fills each device in order: if any distribution over these devices fits, this one does.
pub(crate) fn filled<'a>(footprint: &ModelFootprint, devices: &[&'a Device]) -> Option<Layout<'a>> {
    let layers = footprint.layers.iter().map(|layer| layer.weight_bytes.saturating_add(footprint.kv_bytes(layer)));
    let mut items = layers.chain([footprint.output_bytes]).peekable();
    let mut counts = vec![0; devices.len()];
    for (count, device) in counts.iter_mut().zip(devices) {
        let Some(mut free) = device.free.checked_sub(footprint.buffer_bytes()) else { continue };
        while let Some(size) = items.next_if(|size| *size <= free) {
            free -= size;
            *count += 1;
        }
    }
    items.peek().is_none().then(|| Layout::of_counts(devices, &counts))
}

/// Everything on one device; with a GPU, the input embedding and the process are in the machine's memory.
pub(crate) fn alone(footprint: &ModelFootprint, device: &Device, host: Option<&Device>) -> Placement {
    spread(footprint, &Layout::new(&[device], vec![1.0]), host)
}

/// The placement of a layout.
pub(crate) fn spread(footprint: &ModelFootprint, layout: &Layout<'_>, host: Option<&Device>) -> Placement {
    let counts = counts(&layout.shares, footprint.layers.len() + 1);
    let sum: f64 = layout.shares.iter().map(|share| f64::from(*share)).sum();
    let mut from = 0;
    let mut parts = Vec::new();
    for ((device, share), count) in layout.devices.iter().zip(&layout.shares).zip(counts) {
        let layers = &footprint.layers[from.min(footprint.layers.len())..(from + count).min(footprint.layers.len())];
        let output = count > layers.len();
        from += count;
        let mut part = PlacementPart {
            device: device.name.clone(),
            share: *share,
            layers: layers.len(),
            has_output: output,
            weight_bytes: layers.iter().map(|layer| layer.weight_bytes).fold(0, u64::saturating_add),
            kv_bytes: layers.iter().map(|layer| footprint.kv_bytes(layer)).fold(0, u64::saturating_add),
            compute_bytes: footprint.buffer_bytes(),
            process_bytes: 0,
        };
        if output {
            part.weight_bytes = part.weight_bytes.saturating_add(footprint.output_bytes);
        }
        if footprint.split == SplitMode::Row && layout.devices.len() > 1 {
            part.weight_bytes = row_bytes(footprint, f64::from(*share) / sum);
        }
        parts.push(part);
    }
    let cpu = layout.devices.iter().position(|device| device.kind == DeviceKind::Cpu);
    let host = match cpu {
        Some(index) => {
            // A tied tensor is stored once in one memory.
            let input = footprint.input_bytes.saturating_sub(footprint.tied_bytes);
            parts[index].weight_bytes = parts[index].weight_bytes.saturating_add(input);
            parts[index].process_bytes = footprint.process_bytes;
            None
        }
        None => host.map(|host| (host.name.clone(), footprint.input_bytes.saturating_add(footprint.process_bytes))),
    };
    let split = if parts.len() > 1 { footprint.split } else { SplitMode::None };
    Placement { model: footprint.model.clone(), split, parts, host, reason: String::new() }
}

/// Bytes of a share of the rows of every matrix, rounded up for each.
fn row_bytes(footprint: &ModelFootprint, share: f64) -> u64 {
    let of = |weights: u64| (weights as f64 * share).ceil() as u64;
    let layers = footprint.layers.iter().map(|layer| of(layer.weight_bytes)).fold(0, u64::saturating_add);
    layers.saturating_add(of(footprint.output_bytes))
}

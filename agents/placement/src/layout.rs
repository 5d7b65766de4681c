//! The distribution of layers over devices.
//!
//! Source: `llama_model_base::load_tensors` in llama.cpp. Of `n` layers and the output, which counts as layer `n`, the last `g`
//! items (`n_gpu_layers`) are on the devices and the others on the CPU, each with its KV cache. Shares are accumulated and
//! divided by their sum in single precision; item `i` of the `g` is placed on the first device whose bound is above `i / g`.

use artel_model::{DeviceKind, SplitMode};

use crate::cache::CacheShape;
use crate::device::Device;
use crate::footprint::{LayerFootprint, ModelFootprint};
use crate::placement::{HostPart, Placement, PlacementPart};

/// What of a model the CPU keeps when other devices compute, and how large its cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrangement {
    /// The last layers and the output that are on the devices.
    pub(crate) device_items: usize,
    /// The first layers whose experts are on the CPU.
    pub(crate) cpu_expert_layers: usize,
    pub(crate) cache: CacheShape,
}

impl Arrangement {
    /// Everything on the devices.
    pub(crate) fn whole(footprint: &ModelFootprint, cache: CacheShape) -> Self {
        Self { device_items: footprint.items(), cpu_expert_layers: 0, cache }
    }

    /// Whether the CPU computes a part of the model.
    fn is_mixed(&self, footprint: &ModelFootprint) -> bool {
        self.device_items < footprint.items() || self.cpu_expert_layers > 0
    }

    /// The layers that the CPU computes.
    fn cpu_layers(&self, footprint: &ModelFootprint) -> usize {
        footprint.items().saturating_sub(self.device_items).min(footprint.layers.len())
    }

    /// Bytes of compute buffers on a device. The CPU is one only if it computes everything.
    fn buffer_bytes(&self, footprint: &ModelFootprint, device: &Device) -> u64 {
        match device.kind {
            DeviceKind::Cpu => footprint.cpu_compute_bytes,
            _ if self.is_mixed(footprint) => footprint.mixed_compute_bytes,
            _ => footprint.compute_bytes,
        }
    }

    /// Bytes of the weights of a layer on its device.
    fn layer_weights(&self, index: usize, layer: &LayerFootprint) -> u64 {
        layer.weight_bytes.saturating_sub(self.cpu_experts(index, layer))
    }

    /// Bytes of the experts of a layer that are on the CPU though its other weights need not be.
    fn cpu_experts(&self, index: usize, layer: &LayerFootprint) -> u64 {
        if index < self.cpu_expert_layers { layer.expert_bytes } else { 0 }
    }
}

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
pub(crate) fn by_free_memory<'a>(
    footprint: &ModelFootprint,
    arrangement: Arrangement,
    devices: &[&'a Device],
) -> Option<Layout<'a>> {
    let left = |device: &&Device| device.free.saturating_sub(arrangement.buffer_bytes(footprint, device));
    let shares: Vec<f32> = devices.iter().map(|device| left(device) as f32).collect();
    let any = shares.iter().any(|share| *share > 0.0);
    any.then(|| Layout::of_counts(devices, &counts(&shares, arrangement.device_items)))
}

/// Fills each device in order: if any distribution over these devices fits, this one does.
pub(crate) fn filled<'a>(
    footprint: &ModelFootprint,
    arrangement: Arrangement,
    devices: &[&'a Device],
) -> Option<Layout<'a>> {
    let size = |(index, layer): (usize, &LayerFootprint)| {
        arrangement.layer_weights(index, layer).saturating_add(footprint.kv_bytes(layer, arrangement.cache))
    };
    let layers = footprint.layers.iter().enumerate().map(size);
    let skipped = footprint.items().saturating_sub(arrangement.device_items);
    let mut items = layers.chain([footprint.output_bytes]).skip(skipped).peekable();
    let mut counts = vec![0; devices.len()];
    for (count, device) in counts.iter_mut().zip(devices) {
        let Some(mut free) = device.free.checked_sub(arrangement.buffer_bytes(footprint, device)) else { continue };
        while let Some(size) = items.next_if(|size| *size <= free) {
            free -= size;
            *count += 1;
        }
    }
    items.peek().is_none().then(|| Layout::of_counts(devices, &counts))
}

/// All items of an arrangement on one device; with a GPU, the input embedding and the process are in the machine's memory.
pub(crate) fn alone(
    footprint: &ModelFootprint,
    arrangement: Arrangement,
    device: &Device,
    host: Option<&Device>,
) -> Placement {
    // The CPU keeps nothing from itself.
    let arrangement = match device.kind {
        DeviceKind::Cpu => Arrangement::whole(footprint, arrangement.cache),
        _ => arrangement,
    };
    spread(footprint, arrangement, &Layout::new(&[device], vec![1.0]), host)
}

/// The placement of a layout.
pub(crate) fn spread(
    footprint: &ModelFootprint,
    arrangement: Arrangement,
    layout: &Layout<'_>,
    host: Option<&Device>,
) -> Placement {
    let items = arrangement.device_items.min(footprint.items());
    let counts = counts(&layout.shares, items);
    let sum: f64 = layout.shares.iter().map(|share| f64::from(*share)).sum();
    let layers: Vec<(usize, &LayerFootprint)> = footprint.layers.iter().enumerate().collect();
    let weights = |layers: &[(usize, &LayerFootprint)]| {
        layers.iter().map(|(index, layer)| arrangement.layer_weights(*index, layer)).fold(0, u64::saturating_add)
    };
    let cache = |layers: &[(usize, &LayerFootprint)]| {
        layers.iter().map(|(_, layer)| footprint.kv_bytes(layer, arrangement.cache)).fold(0, u64::saturating_add)
    };
    let mut from = footprint.items() - items;
    let mut parts = Vec::new();
    for ((device, share), count) in layout.devices.iter().zip(&layout.shares).zip(counts) {
        let here = &layers[from.min(layers.len())..(from + count).min(layers.len())];
        let output = count > here.len();
        from += count;
        let mut part = PlacementPart {
            device: device.name.clone(),
            share: *share,
            layers: here.len(),
            has_output: output,
            weight_bytes: weights(here),
            kv_bytes: cache(here),
            compute_bytes: arrangement.buffer_bytes(footprint, device),
            process_bytes: 0,
        };
        if output {
            part.weight_bytes = part.weight_bytes.saturating_add(footprint.output_bytes);
        }
        if footprint.split == SplitMode::Row && layout.devices.len() > 1 {
            let split =
                layers[footprint.items() - items..].iter().map(|(i, layer)| arrangement.layer_weights(*i, layer));
            part.weight_bytes = row_bytes(split.chain([footprint.output_bytes]), f64::from(*share) / sum);
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
        None => host.map(|host| {
            let here = &layers[..arrangement.cpu_layers(footprint)];
            let experts = layers.iter().map(|(index, layer)| arrangement.cpu_experts(*index, layer));
            let experts = experts.fold(0, u64::saturating_add);
            HostPart {
                device: host.name.clone(),
                layers: here.len(),
                weight_bytes: footprint.input_bytes.saturating_add(weights(here)).saturating_add(experts),
                kv_bytes: cache(here),
                compute_bytes: if arrangement.is_mixed(footprint) { footprint.beside_compute_bytes } else { 0 },
                process_bytes: footprint.process_bytes,
            }
        }),
    };
    Placement {
        model: footprint.model.clone(),
        split: if parts.len() > 1 { footprint.split } else { SplitMode::None },
        parts,
        host,
        gpu_layers: (items < footprint.items()).then_some(items as u32),
        cpu_expert_layers: arrangement.cpu_expert_layers as u32,
        context_tokens: arrangement.cache.context_tokens,
        sequences: arrangement.cache.sequences,
        reason: String::new(),
    }
}

/// Bytes of a share of the rows of every matrix, rounded up for each.
fn row_bytes(weights: impl Iterator<Item = u64>, share: f64) -> u64 {
    weights.map(|weights| (weights as f64 * share).ceil() as u64).fold(0, u64::saturating_add)
}

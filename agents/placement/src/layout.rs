//! Which layers go to which device.
//!
//! Source: `llama_model_base::load_tensors` in llama.cpp. Shares are added up and divided by their sum in single precision;
//! layer `i` of `n` goes to the first device whose bound is above `i / (n + 1)`, the output as if it were layer `n`.

use crate::device::{Device, Kind};
use crate::need::{Need, Split};
use crate::place::{Part, Place};

/// Devices with a share each.
#[derive(Debug)]
pub(crate) struct Layout<'a> {
    devices: Vec<&'a Device>,
    shares: Vec<f32>,
}

impl<'a> Layout<'a> {
    /// Shares as they were given.
    pub(crate) fn new(devices: &[&'a Device], shares: Vec<f32>) -> Self {
        Self { devices: devices.to_vec(), shares }
    }

    /// So many items, layers and then the output, on each device; who gets none is left out. As shares, the counts give
    /// exactly these counts again.
    fn of_counts(devices: &[&'a Device], counts: &[usize]) -> Self {
        let kept = devices.iter().zip(counts).filter(|(_, count)| **count > 0);
        let (devices, shares) = kept.map(|(device, count)| (*device, *count as f32)).unzip();
        Self { devices, shares }
    }
}

/// How many of `items` each share gets, the way llama.cpp does it.
pub(crate) fn counts(shares: &[f32], items: usize) -> Vec<usize> {
    let mut bounds: Vec<f32> = shares.to_vec();
    for at in 1..bounds.len() {
        bounds[at] += bounds[at - 1];
    }
    let sum = bounds.last().copied().unwrap_or(0.0);
    bounds.iter_mut().for_each(|bound| *bound /= sum);
    let mut counts = vec![0; shares.len()];
    for item in 0..items {
        let at = bounds.partition_point(|bound| *bound <= item as f32 / items as f32);
        counts[at.min(shares.len() - 1)] += 1;
    }
    counts
}

/// Shares by what is free once the buffers are made.
pub(crate) fn by_free_memory<'a>(need: &Need, devices: &[&'a Device]) -> Option<Layout<'a>> {
    let shares: Vec<f32> = devices.iter().map(|device| device.free.saturating_sub(need.buffers()) as f32).collect();
    let some = shares.iter().any(|share| *share > 0.0);
    some.then(|| Layout::of_counts(devices, &counts(&shares, need.layers.len() + 1)))
}

/// Each device as full as it gets, in order: if layers can be spread over these devices at all, then so.
pub(crate) fn filled<'a>(need: &Need, devices: &[&'a Device]) -> Option<Layout<'a>> {
    let layers = need.layers.iter().map(|layer| layer.weights.saturating_add(need.cache_of(layer)));
    let mut items = layers.chain([need.output]).peekable();
    let mut counts = vec![0; devices.len()];
    for (count, device) in counts.iter_mut().zip(devices) {
        let Some(mut left) = device.free.checked_sub(need.buffers()) else { continue };
        while let Some(size) = items.next_if(|size| *size <= left) {
            left -= size;
            *count += 1;
        }
    }
    items.peek().is_none().then(|| Layout::of_counts(devices, &counts))
}

/// Everything on one device; beside a GPU, the input and the process are in the machine's memory.
pub(crate) fn alone(need: &Need, device: &Device, host: Option<&Device>) -> Place {
    spread(need, &Layout::new(&[device], vec![1.0]), host)
}

/// The place that a layout gives.
pub(crate) fn spread(need: &Need, layout: &Layout<'_>, host: Option<&Device>) -> Place {
    let counts = counts(&layout.shares, need.layers.len() + 1);
    let sum: f64 = layout.shares.iter().map(|share| f64::from(*share)).sum();
    let mut from = 0;
    let mut parts = Vec::new();
    for ((device, share), count) in layout.devices.iter().zip(&layout.shares).zip(counts) {
        let layers = &need.layers[from.min(need.layers.len())..(from + count).min(need.layers.len())];
        let output = count > layers.len();
        from += count;
        let mut part = Part {
            device: device.name.clone(),
            share: *share,
            layers: layers.len(),
            output,
            weights: layers.iter().map(|layer| layer.weights).fold(0, u64::saturating_add),
            cache: layers.iter().map(|layer| need.cache_of(layer)).fold(0, u64::saturating_add),
            compute: need.buffers(),
            process: 0,
        };
        if output {
            part.weights = part.weights.saturating_add(need.output);
        }
        if need.split == Split::Row && layout.devices.len() > 1 {
            part.weights = rows(need, f64::from(*share) / sum);
        }
        parts.push(part);
    }
    let cpu = layout.devices.iter().position(|device| device.kind == Kind::Cpu);
    let host = match cpu {
        Some(at) => {
            // There is one tensor in one memory.
            let input = need.input.saturating_sub(need.tied);
            parts[at].weights = parts[at].weights.saturating_add(input);
            parts[at].process = need.process;
            None
        }
        None => host.map(|host| (host.name.clone(), need.input.saturating_add(need.process))),
    };
    let split = if parts.len() > 1 { need.split } else { Split::None };
    Place { model: need.model.clone(), split, parts, host, reason: String::new() }
}

/// A share of the rows of every matrix, rounded up for each.
fn rows(need: &Need, share: f64) -> u64 {
    let of = |weights: u64| (weights as f64 * share).ceil() as u64;
    let layers = need.layers.iter().map(|layer| of(layer.weights)).fold(0, u64::saturating_add);
    layers.saturating_add(of(need.output))
}

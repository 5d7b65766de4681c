//! Fixtures and strategies: models, machines, and random combinations of both.

mod evict;
mod kept;
mod messages;
mod partial;
mod placement;
mod plan;
mod swap;

use proptest::prelude::*;

use crate::{
    CacheSize, Device, DeviceChoice, DeviceKind, ExpertPlacement, GpuLayers, KvCacheType, LayerFootprint,
    ModelFootprint, SplitMode,
};

const GB: u64 = 1_000_000_000;

fn device(name: &str, kind: DeviceKind, free: u64) -> Device {
    Device { name: name.to_owned(), kind, total: free, free }
}

/// A CPU with 16 GB and two GPUs with 8 GB and 6 GB.
fn machine() -> Vec<Device> {
    vec![
        device("CUDA0", DeviceKind::Gpu, 8 * GB),
        device("CUDA1", DeviceKind::Gpu, 6 * GB),
        device("CPU", DeviceKind::Cpu, 16 * GB),
    ]
}

fn layer(weight_bytes: u64, kv_elements: u64) -> LayerFootprint {
    let file_bytes = weight_bytes;
    LayerFootprint { weight_bytes, file_bytes, expert_bytes: 0, adapter_bytes: 0, kv_elements, window_tokens: None }
}

/// A model of ten layers with these bytes of weights in total, and half a gigabyte of KV cache per sequence of 4,096 tokens,
/// which are written.
fn model(name: &str, weights: u64) -> ModelFootprint {
    let layer = layer(weights / 10, 6103);
    ModelFootprint {
        model: name.to_owned(),
        layers: vec![layer; 10],
        input_bytes: 0,
        output_bytes: 0,
        tied_bytes: 0,
        kv_type: KvCacheType::F16,
        written_kv_type: None,
        context_tokens: 4096,
        min_context_tokens: 4096,
        sequences: 1,
        min_sequences: 1,
        role_tokens: 0,
        cache_size: CacheSize::Fitting,
        compute_bytes: GB / 10,
        cpu_compute_bytes: GB / 10,
        mixed_compute_bytes: GB / 5,
        beside_compute_bytes: GB / 10,
        process_bytes: GB / 10,
        devices: DeviceChoice::Auto,
        split: SplitMode::Layer,
        tensor_split: None,
        gpu_layers: GpuLayers::Auto,
        experts: ExpertPlacement::Auto,
        is_kept: false,
        weight_elements: 0,
    }
}

/// All layers on devices other than the CPU.
fn whole(footprint: ModelFootprint) -> ModelFootprint {
    ModelFootprint { gpu_layers: GpuLayers::Count(99), ..footprint }
}

fn pinned(footprint: ModelFootprint, devices: &[&str]) -> ModelFootprint {
    ModelFootprint {
        devices: DeviceChoice::Pinned(devices.iter().map(|name| (*name).to_owned()).collect()),
        ..footprint
    }
}

/// Up to three GPUs, two devices of other machines, an integrated GPU or none, and a CPU.
fn devices() -> impl Strategy<Value = Vec<Device>> {
    let free = || 0..2000u64;
    let gpus = prop::collection::vec(free(), 0..4);
    let rpc = prop::collection::vec(free(), 0..3);
    (gpus, rpc, prop::option::of(free()), free()).prop_map(|(gpus, rpc, shared, cpu)| {
        let gpus = gpus.iter().enumerate().map(|(at, free)| device(&format!("CUDA{at}"), DeviceKind::Gpu, *free));
        let rpc = rpc.iter().enumerate().map(|(at, free)| device(&format!("RPC[host:{at}]"), DeviceKind::Rpc, *free));
        let shared = shared.map(|free| device("Vulkan0", DeviceKind::IntegratedGpu, free));
        rpc.chain(gpus).chain(shared).chain([device("CPU", DeviceKind::Cpu, cpu)]).collect()
    })
}

fn footprint() -> impl Strategy<Value = ModelFootprint> {
    let layer = (0..200u64, 0..3u64, prop::option::of(1..2000u32), 0..101u64);
    let layers = layer.prop_map(|(weight_bytes, elements, window_tokens, percent)| {
        let file_bytes = if elements == 1 { weight_bytes / 3 } else { weight_bytes };
        let expert_bytes = weight_bytes * percent.saturating_sub(50) / 50;
        let (adapter_bytes, kv_elements) = ((weight_bytes - expert_bytes) / 4, elements / 2);
        LayerFootprint { weight_bytes, file_bytes, expert_bytes, adapter_bytes, kv_elements, window_tokens }
    });
    let kv_types = prop::sample::select(vec![KvCacheType::F32, KvCacheType::F16, KvCacheType::Q8_0]);
    let splits = prop::sample::select(vec![SplitMode::None, SplitMode::Layer, SplitMode::Row]);
    let sizes = (0..100u64, 0..100u64, 0..30u64, 0..30u64, 0..30u64);
    let cache_sizes = prop_oneof![
        4 => Just(CacheSize::Fitting),
        1 => (1..5000u32).prop_map(CacheSize::Tokens),
        1 => (1..91u8).prop_map(CacheSize::Percent),
    ];
    let gpu_layers = prop_oneof![4 => Just(GpuLayers::Auto), 1 => (0..15u32).prop_map(GpuLayers::Count)];
    let cache = (1..1500u32, 1..1500u32, 1..4u32, 1..4u32, cache_sizes);
    let experts = prop::sample::select(vec![ExpertPlacement::Auto, ExpertPlacement::Auto, ExpertPlacement::Cpu]);
    let placed = (splits, gpu_layers, experts, prop::bool::ANY, 0..3u64);
    (prop::collection::vec(layers, 1..12), sizes, kv_types, cache, placed).prop_map(
        |(mut layers, sizes, kv_type, cache, (split, gpu_layers, experts, has_experts, elements))| {
            let (input_bytes, output_bytes, compute_bytes, copies, process_bytes) = sizes;
            let (context_tokens, min_context_tokens, sequences, min_sequences, cache_size) = cache;
            if !has_experts {
                layers.iter_mut().for_each(|layer| layer.expert_bytes = 0);
            }
            let has_experts = layers.iter().any(|layer| layer.expert_bytes > 0);
            ModelFootprint {
                model: "m".to_owned(),
                is_kept: false,
                weight_elements: layers.iter().map(|layer| layer.weight_bytes).sum::<u64>() * elements / 2,
                layers,
                input_bytes,
                output_bytes,
                tied_bytes: input_bytes.min(output_bytes) / 2,
                kv_type,
                written_kv_type: (kv_type != KvCacheType::F16).then_some(kv_type),
                context_tokens,
                min_context_tokens: min_context_tokens.min(context_tokens),
                sequences,
                min_sequences: min_sequences.min(sequences),
                role_tokens: 0,
                cache_size,
                compute_bytes,
                cpu_compute_bytes: compute_bytes / 2,
                mixed_compute_bytes: compute_bytes + copies,
                beside_compute_bytes: compute_bytes / 4,
                process_bytes,
                devices: DeviceChoice::Auto,
                split,
                tensor_split: None,
                gpu_layers,
                experts: if has_experts { experts } else { ExpertPlacement::Auto },
            }
        },
    )
}

/// Devices, and a footprint that may be pinned to some of them, possibly with a `tensor_split`.
fn model_and_devices() -> impl Strategy<Value = (ModelFootprint, Vec<Device>)> {
    let pins = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    let shares = prop::option::of(prop::collection::vec(1..10u8, 4));
    (footprint(), devices(), pins, shares).prop_map(|(mut footprint, devices, pins, shares)| {
        let mut names: Vec<String> = Vec::new();
        for pin in pins {
            let name = &devices[pin.index(devices.len())].name;
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        if !names.is_empty() {
            footprint.tensor_split =
                shares.map(|shares| shares[..names.len()].iter().map(|share| f32::from(*share)).collect());
            footprint.devices = DeviceChoice::Pinned(names);
        }
        (footprint, devices)
    })
}

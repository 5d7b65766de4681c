//! Fixtures and strategies: models, machines, and random combinations of both.

mod evict;
mod messages;
mod placement;
mod plan;
mod swap;

use proptest::prelude::*;

use crate::{Device, DeviceChoice, DeviceKind, KvCacheType, LayerFootprint, ModelFootprint, SplitMode};

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

/// A model of ten layers with these bytes of weights in total, and half a gigabyte of KV cache per sequence of 4,096 tokens.
fn model(name: &str, weights: u64) -> ModelFootprint {
    let layer =
        LayerFootprint { weight_bytes: weights / 10, file_bytes: weights / 10, kv_elements: 6103, window_tokens: None };
    ModelFootprint {
        model: name.to_owned(),
        layers: vec![layer; 10],
        input_bytes: 0,
        output_bytes: 0,
        tied_bytes: 0,
        kv_type: KvCacheType::F16,
        context_tokens: 4096,
        sequences: 1,
        contexts: 1,
        compute_bytes: GB / 10,
        process_bytes: GB / 10,
        devices: DeviceChoice::Auto,
        split: SplitMode::Layer,
        tensor_split: None,
    }
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
    let layer = (0..200u64, 0..3u64, prop::option::of(1..2000u32));
    let layers = layer.prop_map(|(weight_bytes, elements, window_tokens)| {
        let file_bytes = if elements == 1 { weight_bytes / 3 } else { weight_bytes };
        LayerFootprint { weight_bytes, file_bytes, kv_elements: elements / 2, window_tokens }
    });
    let kv_types = prop::sample::select(vec![KvCacheType::F32, KvCacheType::F16, KvCacheType::Q8_0]);
    let splits = prop::sample::select(vec![SplitMode::None, SplitMode::Layer, SplitMode::Row]);
    let sizes = (0..100u64, 0..100u64, 0..30u64, 0..30u64);
    (prop::collection::vec(layers, 1..12), sizes, kv_types, splits, 1..1500u32, 1..4u32, 1..3u32).prop_map(
        |(
            layers,
            (input_bytes, output_bytes, compute_bytes, process_bytes),
            kv_type,
            split,
            context_tokens,
            sequences,
            contexts,
        )| ModelFootprint {
            model: "m".to_owned(),
            layers,
            input_bytes,
            output_bytes,
            tied_bytes: input_bytes.min(output_bytes) / 2,
            kv_type,
            context_tokens,
            sequences,
            contexts,
            compute_bytes,
            process_bytes,
            devices: DeviceChoice::Auto,
            split,
            tensor_split: None,
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

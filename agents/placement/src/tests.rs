//! Worlds at random, and what must hold in all of them.

mod place;
mod plan;
mod room;
mod turn;
mod words;

use proptest::prelude::*;

use crate::{Cache, Device, Devices, Kind, Layer, Need, Split};

const GB: u64 = 1_000_000_000;

fn device(name: &str, kind: Kind, free: u64) -> Device {
    Device { name: name.to_owned(), kind, total: free, free }
}

/// A CPU with 16 GB and two GPUs with 8 and 6.
fn machine() -> Vec<Device> {
    vec![device("CUDA0", Kind::Gpu, 8 * GB), device("CUDA1", Kind::Gpu, 6 * GB), device("CPU", Kind::Cpu, 16 * GB)]
}

/// A model of ten layers with so many bytes of weights in all, and half a gigabyte of cache for each sequence of 4,096 tokens.
fn model(name: &str, weights: u64) -> Need {
    let layer = Layer { weights: weights / 10, in_file: weights / 10, cached: 6103, window: None };
    Need {
        model: name.to_owned(),
        layers: vec![layer; 10],
        input: 0,
        output: 0,
        tied: 0,
        cache: Cache::F16,
        tokens: 4096,
        sequences: 1,
        lanes: 1,
        compute: GB / 10,
        process: GB / 10,
        devices: Devices::Auto,
        split: Split::Layer,
        shares: None,
    }
}

fn pinned(need: Need, devices: &[&str]) -> Need {
    Need { devices: Devices::These(devices.iter().map(|name| (*name).to_owned()).collect()), ..need }
}

/// Up to three GPUs, two devices of other machines, an integrated GPU or none, and a CPU.
fn devices() -> impl Strategy<Value = Vec<Device>> {
    let free = || 0..2000u64;
    let gpus = prop::collection::vec(free(), 0..4);
    let rpc = prop::collection::vec(free(), 0..3);
    (gpus, rpc, prop::option::of(free()), free()).prop_map(|(gpus, rpc, shared, cpu)| {
        let gpus = gpus.iter().enumerate().map(|(at, free)| device(&format!("CUDA{at}"), Kind::Gpu, *free));
        let rpc = rpc.iter().enumerate().map(|(at, free)| device(&format!("RPC[host:{at}]"), Kind::Rpc, *free));
        let shared = shared.map(|free| device("Vulkan0", Kind::IntegratedGpu, free));
        rpc.chain(gpus).chain(shared).chain([device("CPU", Kind::Cpu, cpu)]).collect()
    })
}

fn need() -> impl Strategy<Value = Need> {
    let layer = (0..200u64, 0..3u64, prop::option::of(1..2000u32));
    let layers = layer.prop_map(|(weights, cached, window)| {
        let in_file = if cached == 1 { weights / 3 } else { weights };
        Layer { weights, in_file, cached: cached / 2, window }
    });
    let caches = prop::sample::select(vec![Cache::F32, Cache::F16, Cache::Q8_0]);
    let splits = prop::sample::select(vec![Split::None, Split::Layer, Split::Row]);
    let sizes = (0..100u64, 0..100u64, 0..30u64, 0..30u64);
    (prop::collection::vec(layers, 1..12), sizes, caches, splits, 1..1500u32, 1..4u32, 1..3u32).prop_map(
        |(layers, (input, output, compute, process), cache, split, tokens, sequences, lanes)| Need {
            model: "m".to_owned(),
            layers,
            input,
            output,
            tied: input.min(output) / 2,
            cache,
            tokens,
            sequences,
            lanes,
            compute,
            process,
            devices: Devices::Auto,
            split,
            shares: None,
        },
    )
}

/// Devices, and a need that may be pinned to some of them, perhaps with shares.
fn world() -> impl Strategy<Value = (Need, Vec<Device>)> {
    let pins = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    let shares = prop::option::of(prop::collection::vec(1..10u8, 4));
    (need(), devices(), pins, shares).prop_map(|(mut need, devices, pins, shares)| {
        let mut names: Vec<String> = Vec::new();
        for pin in pins {
            let name = &devices[pin.index(devices.len())].name;
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        if !names.is_empty() {
            need.shares = shares.map(|shares| shares[..names.len()].iter().map(|share| f32::from(*share)).collect());
            need.devices = Devices::These(names);
        }
        (need, devices)
    })
}

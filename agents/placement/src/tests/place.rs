//! One model.

use proptest::prelude::*;

use super::{GB, device, machine, model, pinned, world};
use crate::{Change, Device, Devices, Kind, Layer, Need, Place, Refusal, Remedy, Split, place};

/// llama.cpp's own arithmetic, as it is written there: which device each of the layers and the output goes to.
fn as_llama_does(shares: &[f32], layers: usize) -> Vec<usize> {
    let mut splits = shares.to_vec();
    let mut split_sum = 0.0f32;
    for split in &mut splits {
        split_sum += *split;
        *split = split_sum;
    }
    for split in &mut splits {
        *split /= split_sum;
    }
    let of = |il: usize| splits.iter().position(|split| *split > il as f32 / (layers + 1) as f32).unwrap();
    (0..=layers).map(of).collect()
}

/// What all on `device` takes of it and of the machine's memory, reckoned anew from the need.
fn alone_on(need: &Need, device: &Device) -> (u64, u64) {
    let cells = |window: Option<u32>| u64::from(window.unwrap_or(u32::MAX).min(need.tokens)).div_ceil(256) * 256;
    let times = u64::from(need.sequences * need.lanes);
    let layers = need.layers.iter().map(|l| l.weights + need.cache.bytes(l.cached) * cells(l.window) * times);
    let there = layers.sum::<u64>() + need.output + need.compute * u64::from(need.lanes);
    let beside = need.input + need.process;
    match device.kind {
        Kind::Cpu => (there + beside - need.tied, there + beside - need.tied),
        Kind::IntegratedGpu => (there, there + beside),
        _ => (there, beside),
    }
}

fn cpu(devices: &[Device]) -> u64 {
    devices.iter().find(|device| device.kind == Kind::Cpu).unwrap().free
}

fn fits_alone(need: &Need, devices: &[Device]) -> Option<String> {
    let allowed = |device: &&Device| match &need.devices {
        Devices::Auto => device.kind != Kind::Accelerator,
        Devices::These(names) => names.contains(&device.name),
    };
    let fits = |device: &&Device| {
        let (there, host) = alone_on(need, device);
        there <= device.free && host <= cpu(devices)
    };
    devices.iter().filter(allowed).find(fits).map(|device| device.name.clone())
}

/// Whether two GPUs hold it with some cut between its layers.
fn fits_two(need: &Need, devices: &[Device]) -> bool {
    let gpus: Vec<&Device> = devices.iter().filter(|device| device.kind == Kind::Gpu).collect();
    let size = |l: &Layer| l.weights + need.cache_of(l);
    let items: Vec<u64> = need.layers.iter().map(size).chain([need.output]).collect();
    let holds = |device: &Device, items: &[u64]| items.iter().sum::<u64>() + need.buffers() <= device.free;
    let pairs = (0..gpus.len()).flat_map(|a| (a + 1..gpus.len()).map(move |b| (a, b)));
    let cut = |(a, b): (usize, usize)| {
        (0..=items.len()).any(|at| holds(gpus[a], &items[..at]) && holds(gpus[b], &items[at..]))
    };
    need.input + need.process <= cpu(devices) && pairs.into_iter().any(cut)
}

fn check_place(need: &Need, devices: &[Device], place: &Place) -> Result<(), TestCaseError> {
    let bytes = place.bytes();
    let shared: u64 = devices.iter().filter(|d| d.kind == Kind::IntegratedGpu).filter_map(|d| bytes.get(&d.name)).sum();
    for device in devices {
        let here = bytes.get(&device.name).copied().unwrap_or(0);
        let here = if device.kind == Kind::Cpu { here + shared } else { here };
        prop_assert!(here <= device.free, "{} holds {here} of {}", device.name, device.free);
    }
    if let Devices::These(names) = &need.devices {
        prop_assert!(place.parts.iter().all(|part| names.contains(&part.device)));
    }
    prop_assert!(need.split != Split::None || place.parts.len() == 1);
    // Every layer is placed once, the output too, and llama.cpp would place them so.
    prop_assert_eq!(place.parts.iter().map(|part| part.layers).sum::<usize>(), need.layers.len());
    prop_assert_eq!(place.parts.iter().filter(|part| part.output).count(), 1);
    let shares: Vec<f32> = place.parts.iter().map(|part| part.share).collect();
    let owners = as_llama_does(&shares, need.layers.len());
    for (at, part) in place.parts.iter().enumerate() {
        prop_assert_eq!(owners.iter().filter(|owner| **owner == at).count(), part.layers + usize::from(part.output));
    }
    prop_assert!((place.fractions().iter().sum::<f64>() - 1.0).abs() < 1e-9);
    Ok(())
}

/// Nothing is lost: the parts together take what the need says.
fn check_sum(need: &Need, place: &Place) -> Result<(), TestCaseError> {
    let parts = place.parts.len() as u64;
    let cache: u64 = need.layers.iter().map(|layer| need.cache_of(layer)).sum();
    prop_assert_eq!(place.parts.iter().map(|part| part.cache).sum::<u64>(), cache);
    prop_assert_eq!(place.parts.iter().map(|part| part.compute).sum::<u64>(), parts * need.buffers());
    let weights: u64 = need.layers.iter().map(|layer| layer.weights).sum::<u64>() + need.output;
    let found = place.parts.iter().map(|part| part.weights).sum::<u64>();
    match (place.split, &place.host) {
        (Split::Row, _) => {
            let rounding = parts * (need.layers.len() as u64 + 1);
            prop_assert!((weights..=weights + rounding).contains(&found), "{found} of {weights}");
        }
        (_, Some((_, beside))) => {
            prop_assert_eq!(found, weights);
            prop_assert_eq!(*beside, need.input + need.process);
        }
        (_, None) => {
            prop_assert_eq!(found, weights + need.input - need.tied);
            prop_assert_eq!(place.parts[0].process, need.process);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_place_holds_and_a_refusal_is_true((need, devices) in world()) {
        match place(&need, &devices) {
            Ok(found) => {
                check_place(&need, &devices, &found)?;
                check_sum(&need, &found)?;
                prop_assert!(!found.reason.is_empty());
            }
            Err(Refusal::NoRoom { shortage, .. }) => {
                prop_assert!(shortage.missing() > 0);
                let spread = matches!(&need.devices, Devices::These(names) if names.len() > 1) && need.split != Split::None;
                if !spread {
                    prop_assert_eq!(fits_alone(&need, &devices), None);
                }
                if need.devices == Devices::Auto && need.split == Split::Layer {
                    prop_assert!(!fits_two(&need, &devices));
                }
            }
            Err(Refusal::Impossible { .. }) => {
                let Devices::These(names) = &need.devices else { panic!("a CPU can always be asked") };
                prop_assert!(names.len() > 1);
            }
            Err(unknown @ Refusal::UnknownDevice { .. }) => panic!("{unknown}"),
        }
    }

    #[test]
    fn remedies_make_it_fit_and_take_no_more_than_they_must((need, devices) in world()) {
        let Err(refusal) = place(&need, &devices) else { return Ok(()) };
        for remedy in refusal.remedies() {
            let found = place(&remedy.need, &devices);
            prop_assert_eq!(found.as_ref().ok(), Some(&remedy.place));
            check_place(&remedy.need, &devices, &remedy.place)?;
            let mut less = remedy.need.clone();
            let changed = match remedy.changes.last() {
                Some(Change::Sequences { to, from }) => { less.sequences = to + 1; to + 1 < *from }
                Some(Change::Context { to, from }) => { less.tokens = to + 256; to + 256 < *from }
                _ => false,
            };
            if changed {
                prop_assert!(place(&less, &devices).is_err(), "more would have fitted than {remedy}");
            }
            let mut undone = remedy.need.clone();
            for change in &remedy.changes {
                match change {
                    Change::Weights => undone.layers.clone_from(&need.layers),
                    Change::Cache { from, .. } => undone.cache = *from,
                    Change::Sequences { from, .. } => undone.sequences = *from,
                    Change::Context { from, .. } => undone.tokens = *from,
                    Change::Split { .. } | Change::Unpin => {
                        undone.devices = need.devices.clone();
                        undone.split = need.split;
                        undone.shares.clone_from(&need.shares);
                    }
                }
            }
            prop_assert_eq!(&undone, &need, "nothing else is changed");
        }
    }

    #[test]
    fn as_many_sequences_and_tokens_are_offered_as_fit(sequences in 2..60u32, pieces in 2..60u32, free in 0..40_000_000u64) {
        // A sequence takes 10 layers x 100 numbers x 2 bytes for each token; all else is 3 million bytes.
        let layer = Layer { weights: 100_000, in_file: 100_000, cached: 100, window: None };
        let tokens = pieces * 256;
        let need = Need { layers: vec![layer; 10], sequences, tokens, compute: 2_000_000, ..pinned(model("m", 0), &["G"]) };
        let devices = [device("G", Kind::Gpu, free), device("CPU", Kind::Cpu, GB)];
        let Err(refusal) = place(&need, &devices) else { return Ok(()) };
        let left = free.saturating_sub(3_000_000);
        let most_sequences = left / (2000 * u64::from(tokens));
        let most_tokens = left / (2000 * 256 * u64::from(sequences)) * 256;
        let alone = |remedy: &&Remedy| remedy.changes.len() == 1;
        let mut offered = (0, 0);
        for remedy in refusal.remedies().iter().filter(alone) {
            match remedy.changes[0] {
                Change::Sequences { to, .. } => offered.0 = u64::from(to),
                Change::Context { to, .. } => offered.1 = u64::from(to),
                _ => {}
            }
        }
        // A context of a single piece is not worth offering.
        let most_tokens = if most_tokens < 512 { 0 } else { most_tokens };
        prop_assert_eq!(offered, (most_sequences, most_tokens));
    }

    #[test]
    fn absurd_sizes_are_refused_and_overflow_nothing((mut need, devices) in world(), huge in any::<[bool; 5]>()) {
        let grow = |field: &mut u64, huge: bool| if huge { *field = u64::MAX - 1 };
        grow(&mut need.input, huge[0]);
        grow(&mut need.output, huge[1]);
        grow(&mut need.compute, huge[2]);
        grow(&mut need.process, huge[3]);
        grow(&mut need.layers[0].cached, huge[4]);
        need.tied = 0;
        prop_assert!(huge == [false; 5] || place(&need, &devices).is_err());
    }
}

#[test]
fn without_a_pin_the_fullest_gpu_with_room_is_taken_then_several_then_the_cpu() {
    let devices_of = |weights| place(&model("m", weights), &machine()).unwrap().devices().join(" ");
    assert_eq!(devices_of(5 * GB), "CUDA1");
    assert_eq!(devices_of(6 * GB), "CUDA0");
    assert_eq!(devices_of(10 * GB), "CUDA0 CUDA1");
    assert_eq!(devices_of(15 * GB), "CPU");
}

#[test]
fn of_several_that_are_named_one_is_taken_without_a_split_and_the_cpu_last() {
    let devices_of = |weights| {
        let need = Need { split: Split::None, ..pinned(model("m", weights), &["CPU", "CUDA1", "CUDA0"]) };
        place(&need, &machine()).unwrap().devices().join(" ")
    };
    assert_eq!([5 * GB, 7 * GB, 10 * GB].map(devices_of), ["CUDA1", "CUDA0", "CPU"]);
}

#[test]
fn another_machine_is_asked_last() {
    let mut devices = machine();
    devices.insert(0, device("RPC[10.0.0.2:50052]", Kind::Rpc, 40 * GB));
    let devices_of = |weights| place(&model("m", weights), &devices).unwrap().devices().join(" ");
    assert_eq!(devices_of(15 * GB), "CPU");
    assert_eq!(devices_of(30 * GB), "RPC[10.0.0.2:50052]");
    assert_eq!(devices_of(40 * GB), "RPC[10.0.0.2:50052] CUDA0");
}

#[test]
fn shares_of_three_to_one_put_three_quarters_on_the_first() {
    let need = Need { shares: Some(vec![3.0, 1.0]), ..pinned(model("m", GB), &["CUDA0", "CUDA1"]) };
    let place = place(&need, &machine()).unwrap();
    // Of ten layers and the output, the first has those below 0.75: 0/11 to 8/11.
    assert_eq!(place.parts.iter().map(|part| (part.layers, part.output)).collect::<Vec<_>>(), [(9, false), (1, true)]);
    assert_eq!(place.fractions(), [0.75, 0.25]);
}

#[test]
fn a_tied_output_lies_once_in_one_memory_and_twice_in_two() {
    let need = Need { input: GB, output: GB, tied: GB, ..model("m", GB) };
    let on = |device: &str| place(&pinned(need.clone(), &[device]), &machine()).unwrap();
    assert_eq!(on("CPU").parts[0].weights, 2 * GB);
    let gpu = on("CUDA0");
    assert_eq!((gpu.parts[0].weights, gpu.host), (2 * GB, Some(("CPU".to_owned(), GB + GB / 10))));
}

#[test]
fn a_lane_for_each_adapter_has_a_cache_of_its_own() {
    let cache = |lanes| place(&Need { lanes, ..model("m", GB) }, &machine()).unwrap().parts[0].cache;
    assert_eq!(cache(4), 4 * cache(1));
}

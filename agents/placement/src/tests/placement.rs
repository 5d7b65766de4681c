//! One model.

use proptest::prelude::*;

use super::{GB, device, layer, machine, model, model_and_devices, pinned};
use crate::search::with_reserve;
use crate::{
    CacheShape, CacheSize, Device, DeviceChoice, DeviceKind, ExpertPlacement, GpuLayers, KvCacheType, LayerFootprint,
    ModelFootprint, Placement, PlacementError, Remedy, SettingChange, SplitMode, place,
};

/// llama.cpp's own arithmetic, transcribed: the device of each layer and of the output, `None` for the CPU.
fn as_llama_does(shares: &[f32], layers: usize, n_gpu_layers: usize) -> Vec<Option<usize>> {
    let mut splits = shares.to_vec();
    let mut split_sum = 0.0f32;
    for split in &mut splits {
        split_sum += *split;
        *split = split_sum;
    }
    for split in &mut splits {
        *split /= split_sum;
    }
    let i_gpu_start = (layers + 1).saturating_sub(n_gpu_layers);
    let act_gpu_layers = n_gpu_layers.min(layers + 1);
    let of = |il: usize| {
        let at = il.checked_sub(i_gpu_start).filter(|at| *at < act_gpu_layers)?;
        Some(splits.iter().position(|split| *split > at as f32 / act_gpu_layers as f32).unwrap())
    };
    (0..=layers).map(of).collect()
}

/// The bytes of cache of a layer, recalculated.
fn cache_bytes(footprint: &ModelFootprint, layer: &LayerFootprint, cache: CacheShape) -> u64 {
    let kept = layer.window_tokens.unwrap_or(u32::MAX).min(cache.context_tokens);
    let cells = u64::from(kept).div_ceil(256) * 256;
    footprint.kv_type.bytes(layer.kv_elements) * cells * u64::from(cache.sequences)
}

fn wanted(footprint: &ModelFootprint) -> CacheShape {
    CacheShape { sequences: footprint.sequences, context_tokens: footprint.context_tokens }
}

/// The bytes that the whole model takes of `device` and of the machine's memory, with this cache.
fn alone_on(footprint: &ModelFootprint, device: &Device, cache: CacheShape) -> (u64, u64) {
    let layers = footprint.layers.iter().map(|layer| layer.weight_bytes + cache_bytes(footprint, layer, cache));
    let there = layers.sum::<u64>() + footprint.output_bytes;
    let beside = footprint.input_bytes + footprint.process_bytes;
    let with_buffers = there + footprint.compute_bytes;
    match device.kind {
        DeviceKind::Cpu => {
            let all = there + footprint.cpu_compute_bytes + beside - footprint.tied_bytes;
            (all, all)
        }
        DeviceKind::IntegratedGpu => (with_buffers, with_buffers + beside),
        _ => (with_buffers, beside),
    }
}

fn cpu(devices: &[Device]) -> u64 {
    devices.iter().find(|device| device.kind == DeviceKind::Cpu).unwrap().free
}

fn fits_alone(footprint: &ModelFootprint, devices: &[Device]) -> Option<String> {
    let allowed = |device: &&Device| match &footprint.devices {
        DeviceChoice::Auto => device.kind != DeviceKind::Accelerator,
        DeviceChoice::Pinned(names) => names.contains(&device.name),
    };
    let within = |device: &Device, cache, cpu| {
        let (there, host) = alone_on(footprint, device, cache);
        there <= device.free && host <= cpu
    };
    let least = CacheShape { sequences: footprint.min_sequences, context_tokens: footprint.context_tokens };
    let reserved = with_reserve(devices);
    let fits = |device: &&Device| {
        let fitted = reserved.iter().find(|other| other.name == device.name).unwrap();
        within(device, wanted(footprint), cpu(devices)) || within(fitted, least, cpu(&reserved))
    };
    devices.iter().filter(allowed).find(fits).map(|device| device.name.clone())
}

/// Whether it fits on two GPUs with some cut between its layers.
fn fits_two(footprint: &ModelFootprint, devices: &[Device]) -> bool {
    let gpus: Vec<&Device> = devices.iter().filter(|device| device.kind == DeviceKind::Gpu).collect();
    let size = |l: &LayerFootprint| l.weight_bytes + cache_bytes(footprint, l, wanted(footprint));
    let items: Vec<u64> = footprint.layers.iter().map(size).chain([footprint.output_bytes]).collect();
    let holds = |device: &Device, items: &[u64]| items.iter().sum::<u64>() + footprint.compute_bytes <= device.free;
    let pairs = (0..gpus.len()).flat_map(|a| (a + 1..gpus.len()).map(move |b| (a, b)));
    let cut = |(a, b): (usize, usize)| {
        (0..=items.len()).any(|at| holds(gpus[a], &items[..at]) && holds(gpus[b], &items[at..]))
    };
    footprint.input_bytes + footprint.process_bytes <= cpu(devices) && pairs.into_iter().any(cut)
}

pub(super) fn check_place(
    footprint: &ModelFootprint,
    devices: &[Device],
    placement: &Placement,
) -> Result<(), TestCaseError> {
    let bytes = placement.bytes();
    let shared: u64 =
        devices.iter().filter(|d| d.kind == DeviceKind::IntegratedGpu).filter_map(|d| bytes.get(&d.name)).sum();
    for device in devices {
        let here = bytes.get(&device.name).copied().unwrap_or(0);
        let here = if device.kind == DeviceKind::Cpu { here + shared } else { here };
        prop_assert!(here <= device.free, "{} holds {here} of {}", device.name, device.free);
    }
    if let DeviceChoice::Pinned(names) = &footprint.devices {
        prop_assert!(placement.parts.iter().all(|part| names.contains(&part.device)));
    }
    prop_assert!(footprint.split != SplitMode::None || placement.parts.len() == 1);
    // Every layer and the output are placed once, on the device that llama.cpp would choose.
    let on_host = placement.host.as_ref().map_or(0, |host| host.layers);
    let layers = footprint.layers.len();
    prop_assert_eq!(placement.parts.iter().map(|part| part.layers).sum::<usize>() + on_host, layers);
    prop_assert_eq!(placement.parts.iter().filter(|part| part.has_output).count(), 1);
    let shares: Vec<f32> = placement.parts.iter().map(|part| part.share).collect();
    let owners = as_llama_does(&shares, layers, placement.gpu_layers.map_or(layers + 1, |count| count as usize));
    for (at, part) in placement.parts.iter().enumerate() {
        prop_assert_eq!(
            owners.iter().filter(|owner| **owner == Some(at)).count(),
            part.layers + usize::from(part.has_output)
        );
    }
    prop_assert_eq!(owners.iter().filter(|owner| owner.is_none()).count(), on_host);
    prop_assert!((placement.fractions().iter().sum::<f64>() - 1.0).abs() < 1e-9);
    check_settings(footprint, devices, placement)
}

/// What was written is obeyed.
fn check_settings(footprint: &ModelFootprint, devices: &[Device], placement: &Placement) -> Result<(), TestCaseError> {
    prop_assert!((footprint.min_sequences..=footprint.sequences).contains(&placement.sequences));
    prop_assert!((footprint.min_context_tokens..=footprint.context_tokens).contains(&placement.context_tokens));
    let is_on_cpu = placement.host.is_none();
    match footprint.gpu_layers {
        GpuLayers::Auto => {}
        GpuLayers::Count(0) => prop_assert!(is_on_cpu),
        GpuLayers::Count(count) => {
            let all = footprint.layers.len() as u32 + 1;
            prop_assert!(!is_on_cpu);
            prop_assert_eq!(placement.gpu_layers.unwrap_or(all), count.min(all));
        }
    }
    if footprint.experts == ExpertPlacement::Cpu && !is_on_cpu {
        prop_assert_eq!(placement.cpu_expert_layers as usize, footprint.layers.len());
    }
    match footprint.cache_size {
        CacheSize::Fitting => {}
        CacheSize::Tokens(most) => prop_assert!(placement.cache().tokens() <= u64::from(most)),
        CacheSize::Percent(percent) => {
            for part in &placement.parts {
                let free = devices.iter().find(|device| device.name == part.device).unwrap().free;
                let beside = free - (part.bytes() - part.kv_bytes);
                prop_assert!(part.kv_bytes <= beside * u64::from(percent) / 100);
            }
        }
    }
    Ok(())
}

/// The parts together take exactly the footprint.
pub(super) fn check_sum(footprint: &ModelFootprint, placement: &Placement) -> Result<(), TestCaseError> {
    let parts = placement.parts.len() as u64;
    let host = placement.host.as_ref();
    let cache: u64 = footprint.layers.iter().map(|layer| cache_bytes(footprint, layer, placement.cache())).sum();
    let found = placement.parts.iter().map(|part| part.kv_bytes).sum::<u64>() + host.map_or(0, |host| host.kv_bytes);
    prop_assert_eq!(found, cache);
    let buffers = match (host, placement.is_mixed()) {
        (None, _) => footprint.cpu_compute_bytes,
        (Some(_), true) => footprint.mixed_compute_bytes,
        (Some(_), false) => footprint.compute_bytes,
    };
    prop_assert_eq!(placement.parts.iter().map(|part| part.compute_bytes).sum::<u64>(), parts * buffers);
    let weights: u64 = footprint.layers.iter().map(|layer| layer.weight_bytes).sum::<u64>() + footprint.output_bytes;
    let found = placement.parts.iter().map(|part| part.weight_bytes).sum::<u64>();
    match host {
        None => {
            prop_assert_eq!(found, weights + footprint.input_bytes - footprint.tied_bytes);
            prop_assert_eq!(placement.parts[0].process_bytes, footprint.process_bytes);
        }
        Some(host) => {
            let found = found + host.weight_bytes;
            let weights = weights + footprint.input_bytes;
            let rounding = if placement.split == SplitMode::Row { parts * footprint.items() as u64 } else { 0 };
            prop_assert!((weights..=weights + rounding).contains(&found), "{found} of {weights}");
            prop_assert_eq!(host.process_bytes, footprint.process_bytes);
            prop_assert_eq!(host.compute_bytes, if placement.is_mixed() { footprint.beside_compute_bytes } else { 0 });
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_placement_fits_and_an_error_is_justified((footprint, devices) in model_and_devices()) {
        match place(&footprint, &devices) {
            Ok(found) => {
                check_place(&footprint, &devices, &found)?;
                check_sum(&footprint, &found)?;
                prop_assert!(!found.reason.is_empty());
            }
            Err(PlacementError::InsufficientMemory { shortage, .. }) => {
                prop_assert!(shortage.missing() > 0);
                let spread = matches!(&footprint.devices, DeviceChoice::Pinned(names) if names.len() > 1) && footprint.split != SplitMode::None;
                let is_free = footprint.cache_size == CacheSize::Fitting && footprint.gpu_layers == GpuLayers::Auto && footprint.experts == ExpertPlacement::Auto;
                if is_free && !spread {
                    prop_assert_eq!(fits_alone(&footprint, &devices), None);
                }
                if is_free && footprint.devices == DeviceChoice::Auto && footprint.split == SplitMode::Layer {
                    prop_assert!(!fits_two(&footprint, &devices));
                }
            }
            Err(PlacementError::Impossible { reason, .. }) => {
                let is_contradictory = matches!(&footprint.devices, DeviceChoice::Pinned(names) if names.len() > 1)
                    || footprint.cache_size != CacheSize::Fitting
                    || footprint.gpu_layers != GpuLayers::Auto;
                prop_assert!(is_contradictory, "{reason}");
            }
            Err(PlacementError::CacheTooSmall { tokens, least, .. }) => {
                prop_assert!(u64::from(tokens) < least.tokens());
            }
            Err(unknown @ PlacementError::UnknownDevice { .. }) => panic!("{unknown}"),
        }
    }

    #[test]
    fn remedies_make_it_fit_and_change_no_more_than_they_must((footprint, devices) in model_and_devices()) {
        let Err(error) = place(&footprint, &devices) else { return Ok(()) };
        for remedy in error.remedies() {
            let found = place(&remedy.footprint, &devices);
            prop_assert_eq!(found.as_ref().ok(), Some(&remedy.placement));
            check_place(&remedy.footprint, &devices, &remedy.placement)?;
            let mut larger = remedy.footprint.clone();
            let changed = match remedy.changes.last() {
                Some(SettingChange::Sequences { to, from }) => {
                    (larger.sequences, larger.min_sequences) = (to + 1, to + 1);
                    to + 1 < *from
                }
                Some(SettingChange::Context { to, from }) => {
                    (larger.context_tokens, larger.min_context_tokens) = (to + 256, to + 256);
                    to + 256 < *from
                }
                Some(SettingChange::GpuLayers { to, from }) => {
                    larger.gpu_layers = GpuLayers::Count(to + 1);
                    GpuLayers::Count(to + 1) != *from && (to + 1) as usize <= footprint.layers.len()
                }
                Some(SettingChange::Cache { to, from }) => match (to.size, from.size) {
                    (CacheSize::Percent(to), CacheSize::Percent(from)) if to != from => {
                        larger.cache_size = CacheSize::Percent(to - 1);
                        to - 1 > from
                    }
                    (CacheSize::Tokens(to), CacheSize::Tokens(from)) if to > from => {
                        larger.cache_size = CacheSize::Tokens(to - 1);
                        true
                    }
                    (CacheSize::Tokens(to), CacheSize::Tokens(from)) if to < from => {
                        let given = remedy.placement.cache();
                        // The next larger cache has a longer context, or with the whole context one more sequence.
                        let next = match given.context_tokens < remedy.footprint.context_tokens {
                            true => (given.context_tokens + 256).min(remedy.footprint.context_tokens) * given.sequences,
                            false => to + given.context_tokens,
                        };
                        larger.cache_size = CacheSize::Tokens(next);
                        next < from
                    }
                    _ => false,
                },
                _ => false,
            };
            if changed {
                prop_assert!(place(&larger, &devices).is_err(), "more than {remedy} would have fitted");
            }
            let mut undone = remedy.footprint.clone();
            for change in &remedy.changes {
                match change {
                    SettingChange::Weights => undone.layers.clone_from(&footprint.layers),
                    SettingChange::Cache { from, .. } => {
                        (undone.cache_size, undone.written_kv_type) = (from.size, from.kv_type);
                        undone.kv_type = from.kv_type.unwrap_or(KvCacheType::F16);
                    }
                    SettingChange::Sequences { from, .. } => {
                        (undone.sequences, undone.min_sequences) = (*from, *from);
                    }
                    SettingChange::Context { from, .. } => {
                        (undone.context_tokens, undone.min_context_tokens) = (*from, *from);
                    }
                    SettingChange::GpuLayers { from, .. } => undone.gpu_layers = *from,
                    SettingChange::CpuExperts => undone.experts = ExpertPlacement::Auto,
                    SettingChange::Quantization { .. } => {
                        undone.layers.clone_from(&footprint.layers);
                        undone.input_bytes = footprint.input_bytes;
                        undone.output_bytes = footprint.output_bytes;
                        undone.tied_bytes = footprint.tied_bytes;
                    }
                    SettingChange::Pin { .. } | SettingChange::Unpin => undone.devices = footprint.devices.clone(),
                    SettingChange::SplitByLayer { from } => undone.split = *from,
                    SettingChange::NoTensorSplit => undone.tensor_split.clone_from(&footprint.tensor_split),
                }
            }
            prop_assert_eq!(&undone, &footprint, "nothing else changes");
        }
    }

    #[test]
    fn as_many_sequences_and_tokens_are_offered_as_fit(sequences in 2..60u32, multiple in 2..60u32, free in 0..40_000_000u64) {
        // A sequence takes 10 layers x 100 elements x 2 bytes per token; everything else is 3 million bytes.
        let tokens = multiple * 256;
        let footprint = ModelFootprint {
            layers: vec![layer(100_000, 100); 10],
            sequences,
            min_sequences: sequences,
            context_tokens: tokens,
            min_context_tokens: tokens,
            compute_bytes: 2_000_000,
            gpu_layers: GpuLayers::Count(11),
            ..pinned(model("m", 0), &["G"])
        };
        let devices = [device("G", DeviceKind::Gpu, free), device("CPU", DeviceKind::Cpu, GB)];
        let Err(error) = place(&footprint, &devices) else { return Ok(()) };
        let available = free.saturating_sub(3_000_000);
        let most_sequences = available / (2000 * u64::from(tokens));
        let most_tokens = available / (2000 * 256 * u64::from(sequences)) * 256;
        let alone = |remedy: &&Remedy| remedy.changes.len() == 1;
        let mut offered = (0, 0);
        for remedy in error.remedies().iter().filter(alone) {
            match remedy.changes[0] {
                SettingChange::Sequences { to, .. } => offered.0 = u64::from(to),
                SettingChange::Context { to, .. } => offered.1 = u64::from(to),
                _ => {}
            }
        }
        // A context of 256 tokens is not offered.
        let most_tokens = if most_tokens < 512 { 0 } else { most_tokens };
        prop_assert_eq!(offered, (most_sequences, most_tokens));
    }

    #[test]
    fn absurd_sizes_are_refused_and_overflow_nothing((mut footprint, devices) in model_and_devices(), huge in any::<[bool; 4]>()) {
        let grow = |field: &mut u64, huge: bool| if huge { *field = u64::MAX - 1 };
        grow(&mut footprint.input_bytes, huge[0]);
        grow(&mut footprint.output_bytes, huge[1]);
        grow(&mut footprint.process_bytes, huge[2]);
        grow(&mut footprint.layers[0].kv_elements, huge[3]);
        let huge_buffers = huge[1];
        grow(&mut footprint.compute_bytes, huge_buffers);
        grow(&mut footprint.mixed_compute_bytes, huge_buffers);
        grow(&mut footprint.cpu_compute_bytes, huge_buffers);
        footprint.tied_bytes = 0;
        prop_assert!(huge == [false; 4] || place(&footprint, &devices).is_err());
    }
}

#[test]
fn without_a_pin_the_fullest_gpu_that_fits_is_used_then_several_then_the_cpu() {
    let devices_of = |weights| place(&model("m", weights), &machine()).unwrap().devices().join(" ");
    assert_eq!(devices_of(5 * GB), "CUDA1");
    assert_eq!(devices_of(6 * GB), "CUDA0");
    assert_eq!(devices_of(10 * GB), "CUDA0 CUDA1");
    let cpu = |gpus: u64| {
        let devices = [device("CUDA0", DeviceKind::Gpu, gpus), device("CPU", DeviceKind::Cpu, 16 * GB)];
        place(&model("m", 15 * GB), &devices).unwrap().devices().join(" ")
    };
    assert_eq!([cpu(GB), cpu(4 * GB)], ["CPU", "CUDA0"], "a GPU that holds less than an eighth is left alone");
}

#[test]
fn without_a_split_one_of_the_pinned_devices_is_used_and_the_cpu_last() {
    let devices_of = |weights| {
        let footprint =
            ModelFootprint { split: SplitMode::None, ..pinned(model("m", weights), &["CPU", "CUDA1", "CUDA0"]) };
        place(&footprint, &machine()).unwrap().devices().join(" ")
    };
    assert_eq!([5 * GB, 7 * GB, 10 * GB].map(devices_of), ["CUDA1", "CUDA0", "CPU"]);
}

#[test]
fn another_machine_is_used_last() {
    let mut devices = machine();
    devices.insert(0, device("RPC[10.0.0.2:50052]", DeviceKind::Rpc, 40 * GB));
    let devices_of = |weights| place(&model("m", weights), &devices).unwrap().devices().join(" ");
    assert_eq!(devices_of(15 * GB), "CUDA0 CUDA1", "with the CPU");
    assert_eq!(devices_of(30 * GB), "RPC[10.0.0.2:50052]");
    assert_eq!(devices_of(40 * GB), "RPC[10.0.0.2:50052] CUDA0");
}

#[test]
fn shares_of_three_to_one_put_three_quarters_on_the_first() {
    let footprint =
        ModelFootprint { tensor_split: Some(vec![3.0, 1.0]), ..pinned(model("m", GB), &["CUDA0", "CUDA1"]) };
    let placement = place(&footprint, &machine()).unwrap();
    // Of ten layers and the output, the first has those below 0.75: 0/11 to 8/11.
    assert_eq!(
        placement.parts.iter().map(|part| (part.layers, part.has_output)).collect::<Vec<_>>(),
        [(9, false), (1, true)]
    );
    assert_eq!(placement.fractions(), [0.75, 0.25]);
}

#[test]
fn a_tied_output_is_stored_once_in_one_memory_and_twice_in_two() {
    let footprint = ModelFootprint { input_bytes: GB, output_bytes: GB, tied_bytes: GB, ..model("m", GB) };
    let on = |device: &str| place(&pinned(footprint.clone(), &[device]), &machine()).unwrap();
    assert_eq!(on("CPU").parts[0].weight_bytes, 2 * GB);
    let gpu = on("CUDA0");
    let host = gpu.host.unwrap();
    assert_eq!((gpu.parts[0].weight_bytes, host.bytes(), host.device.as_str()), (2 * GB, GB + GB / 10, "CPU"));
}

//! Models that fit only with a smaller cache, or with layers or experts on the CPU.

use proptest::prelude::*;

use super::{GB, device, footprint, machine, model, pinned};
use crate::{
    CacheShape, CacheSize, Device, DeviceKind, ExpertPlacement, GpuLayers, KvCacheType, ModelFootprint, PlacementError,
    SplitMode, place,
};

/// A GPU of 8 GB, and a CPU.
fn one_gpu(cpu: u64) -> Vec<Device> {
    vec![device("CUDA0", DeviceKind::Gpu, 8 * GB), device("CPU", DeviceKind::Cpu, cpu)]
}

/// A model whose context and sequences were not written, and whose roles need 1,000 tokens of a sequence.
fn shrinkable(weights: u64, sequences: u32) -> ModelFootprint {
    ModelFootprint { sequences, min_sequences: 1, min_context_tokens: 1000, role_tokens: 1000, ..model("m", weights) }
}

/// A mixture of experts: 90 % of the weights of each layer.
fn experts(weights: u64) -> ModelFootprint {
    let mut footprint = model("m", weights);
    footprint.layers.iter_mut().for_each(|layer| layer.expert_bytes = layer.weight_bytes / 10 * 9);
    footprint
}

fn cache(sequences: u32, context_tokens: u32) -> CacheShape {
    CacheShape { sequences, context_tokens }
}

#[test]
fn a_cache_that_does_not_fit_loses_sequences_first_then_context() {
    let given = |weights| {
        let placement = place(&shrinkable(weights, 8), &one_gpu(16 * GB)).unwrap();
        assert!(!placement.is_mixed());
        placement.cache()
    };
    assert_eq!(given(3 * GB), cache(8, 4096));
    assert_eq!(given(4 * GB), cache(7, 4096), "of 8 GB, the weights take 4, buffers 0.1, and 0.25 stay free");
    assert_eq!(given(7 * GB), cache(1, 4096));
    assert_eq!(given(7 * GB + 400_000_000), cache(1, 2048));
    let placement = place(&shrinkable(7 * GB + 400_000_000, 8), &one_gpu(16 * GB)).unwrap();
    assert!(
        placement.reason.ends_with("; its cache holds 1 sequence of 2048 tokens instead of 8 sequences of 4096 tokens")
    );
}

#[test]
fn what_was_written_of_a_cache_is_a_promise() {
    let wide = ModelFootprint { min_sequences: 8, ..shrinkable(5 * GB, 8) };
    let placement = place(&pinned(wide.clone(), &["CUDA0"]), &one_gpu(16 * GB)).unwrap();
    assert_eq!(placement.cache(), cache(8, 2560), "the context was not written");
    let both = ModelFootprint { min_context_tokens: 4096, gpu_layers: GpuLayers::Count(11), ..wide };
    let error = place(&pinned(both, &["CUDA0"]), &one_gpu(16 * GB)).unwrap_err();
    assert!(error.to_string().ends_with("1.1 GB are missing"), "{error}");
}

#[test]
fn below_what_its_roles_need_a_cache_is_refused_with_figures() {
    let error = place(&shrinkable(7 * GB + 900_000_000, 8), &[one_gpu(GB)[1].clone()]).unwrap_err();
    let PlacementError::InsufficientMemory { shortage, cache: least, .. } = &error else { panic!("{error}") };
    assert_eq!((shortage.device.as_str(), *least), ("CPU", Some(cache(1, 1024))));
    let told = ", even with a cache of 1 sequence of 1024 tokens; no change of its settings would be enough";
    assert!(error.to_string().ends_with(told), "{error}");
}

#[test]
fn a_cache_of_so_many_tokens_has_fewer_sequences_then_a_shorter_context() {
    let of = |tokens| {
        let footprint = ModelFootprint { cache_size: CacheSize::Tokens(tokens), ..shrinkable(GB, 8) };
        place(&footprint, &machine()).map(|placement| placement.cache())
    };
    assert_eq!(of(100_000), Ok(cache(8, 4096)), "never more than wanted");
    assert_eq!(of(16_384), Ok(cache(4, 4096)));
    assert_eq!(of(3000), Ok(cache(1, 2816)));
    // A context has a multiple of 256 tokens, and the roles need 1,000.
    let error = of(1023).unwrap_err();
    assert_eq!(
        error.to_string(),
        "m cannot be placed: `cache: {tokens: 1023}` is too small: it needs 1024 tokens at least, for 1 sequence of 1024 tokens"
    );
    let offered: Vec<String> = error.remedies().iter().map(ToString::to_string).collect();
    let cache = " with a cache of 1 sequence of 1024 tokens";
    assert_eq!(
        offered,
        [format!("`cache: {{tokens: 1024}}` instead of {{tokens: 1023}}: then it takes CUDA1 1.2 GB{cache}")]
    );
}

#[test]
fn more_tokens_than_a_cache_can_use_are_told() {
    let footprint = ModelFootprint { cache_size: CacheSize::Tokens(100_000), ..shrinkable(GB, 8) };
    let reason = place(&footprint, &machine()).unwrap().reason;
    let told = "; its cache holds 8 sequences of 4096 tokens, which are all 32768 tokens that it can use of \
                `cache: {tokens: 100000}`";
    assert!(reason.ends_with(told), "{reason}");
}

#[test]
fn fewer_tokens_than_were_promised_to_sequences_and_context_are_refused_with_advice() {
    let footprint = ModelFootprint {
        cache_size: CacheSize::Tokens(20_000),
        min_sequences: 8,
        min_context_tokens: 4096,
        ..shrinkable(GB, 8)
    };
    let error = place(&footprint, &[device("CPU", DeviceKind::Cpu, 8 * GB)]).unwrap_err();
    let remedies = error.remedies().iter().map(|remedy| format!("  {remedy}\n"));
    insta::assert_snapshot!(format!("{error}\n{}", remedies.collect::<String>()));
}

#[test]
fn advice_on_a_cache_repeats_the_rest_of_the_key() {
    let of = |cache_size, written_kv_type: Option<KvCacheType>, free| {
        let kv_type = written_kv_type.unwrap_or(KvCacheType::F16);
        let footprint = ModelFootprint { cache_size, kv_type, written_kv_type, ..shrinkable(5 * GB, 8) };
        let error = place(&footprint, &[device("CPU", DeviceKind::Cpu, free)]).unwrap_err();
        let remedies = error.remedies().iter().map(|remedy| format!("{remedy}\n"));
        format!("{error}\n{}", remedies.collect::<String>())
    };
    let all = [
        of(CacheSize::Tokens(32_768), Some(KvCacheType::F32), 9 * GB),
        of(CacheSize::Tokens(32_768), None, 5_800_000_000),
        of(CacheSize::Percent(2), Some(KvCacheType::Q8_0), 8 * GB),
        of(CacheSize::Percent(2), None, 5_500_000_000),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn adapters_keep_their_size_with_another_file() {
    // Of 16 GB, 4 GB are of adapters: the other 12 GB have 16 bits per weight.
    let mut footprint = ModelFootprint { weight_elements: 6 * GB, ..model("m", 16 * GB) };
    footprint.layers.iter_mut().for_each(|layer| layer.adapter_bytes = layer.weight_bytes / 4);
    let error = place(&footprint, &[device("CPU", DeviceKind::Cpu, 10 * GB)]).unwrap_err();
    let offered = error.remedies()[0].to_string();
    assert_eq!(offered, "the same model as Q6_K, which has about 4.9 GB: then it takes CPU 9.6 GB");
}

#[test]
fn beside_others_what_the_planner_may_not_do_by_itself_is_offered() {
    use crate::plan;
    let second = ModelFootprint { model: "second".to_owned(), ..pinned(experts(6 * GB), &["CUDA0"]) };
    let first = pinned(model("first", 6 * GB), &["CUDA0"]);
    let mut devices = one_gpu(16 * GB);
    devices[0].free = 10 * GB;
    let plan = plan(&[first, second], &devices, &[]);
    let unplaced = &plan.unplaced[0];
    let remedies = unplaced.error.remedies().iter().map(|remedy| format!("  {remedy}\n"));
    insta::assert_snapshot!(format!("{}\n{}", unplaced.reason, remedies.collect::<String>()));
}

#[test]
fn what_is_missing_is_told_if_no_device_has_memory_for_buffers() {
    let devices = [
        device("CUDA0", DeviceKind::Gpu, 50_000_000),
        device("CUDA1", DeviceKind::Gpu, 60_000_000),
        device("CPU", DeviceKind::Cpu, GB),
    ];
    let error = place(&pinned(model("m", 5 * GB), &["CUDA0", "CUDA1"]), &devices).unwrap_err();
    insta::assert_snapshot!(error.to_string());
}

#[test]
fn a_cache_of_so_many_tokens_that_does_not_fit_is_refused_and_a_smaller_one_offered() {
    let footprint = ModelFootprint { cache_size: CacheSize::Tokens(32_768), ..shrinkable(5 * GB, 8) };
    let cpu = [device("CPU", DeviceKind::Cpu, 8 * GB)];
    let error = place(&footprint, &cpu).unwrap_err();
    let offered: Vec<String> = error.remedies().iter().map(ToString::to_string).collect();
    assert_eq!(
        offered[1],
        "`cache: {tokens: 20480}` instead of {tokens: 32768}: then it takes CPU 7.7 GB with a cache of 5 sequences of 4096 \
         tokens"
    );
}

#[test]
fn a_cache_takes_no_more_than_its_share_of_the_memory_beside_the_rest() {
    // On the CPU, 16 GB less 5 GB of weights and 0.2 GB of buffers are left: 20 % are 2.16 GB, four sequences.
    let footprint = ModelFootprint { cache_size: CacheSize::Percent(20), ..shrinkable(5 * GB, 8) };
    let cpu = [device("CPU", DeviceKind::Cpu, 16 * GB)];
    assert_eq!(place(&footprint, &cpu).unwrap().cache(), cache(4, 4096));
    let least = ModelFootprint { cache_size: CacheSize::Percent(1), ..footprint };
    let error = place(&least, &cpu).unwrap_err();
    assert!(error.to_string().contains("`cache: {share: 1%}` leaves it"), "{error}");
    assert_eq!(
        error.remedies().iter().map(ToString::to_string).next().unwrap(),
        "`cache: {share: 1%, type: q8_0}` instead of {share: 1%}: then it takes CPU 5.3 GB with a cache of 1 sequence of 1536 \
         tokens"
    );
}

#[test]
fn layers_that_fit_on_no_gpu_are_on_the_cpu_with_their_cache() {
    let placement = place(&model("m", 15 * GB), &one_gpu(16 * GB)).unwrap();
    // A layer takes 1.55 GB; of 8 GB, buffers take 0.2, and 0.25 stay free: four layers and the output.
    let host = placement.host.as_ref().unwrap();
    assert_eq!((placement.gpu_layers, host.layers, placement.parts[0].layers), (Some(5), 6, 4));
    assert_eq!((host.kv_bytes, host.weight_bytes), (placement.parts[0].kv_bytes / 4 * 6, 9 * GB));
    insta::assert_snapshot!(placement.reason);
}

#[test]
fn a_number_of_layers_is_obeyed_or_refused() {
    let with = |count, devices: &[&str]| {
        let footprint = ModelFootprint { gpu_layers: GpuLayers::Count(count), ..model("m", 5 * GB) };
        let footprint = if devices.is_empty() { footprint } else { pinned(footprint, devices) };
        place(&footprint, &machine())
    };
    let found = with(4, &[]).unwrap();
    assert_eq!((found.gpu_layers, found.parts[0].layers, found.host.unwrap().layers), (Some(4), 3, 7));
    let split = with(6, &["CUDA0", "CUDA1"]).unwrap();
    assert_eq!(split.parts.iter().map(|part| part.layers).collect::<Vec<_>>(), [4, 1]);
    assert_eq!(with(11, &[]).unwrap().gpu_layers, None);
    assert_eq!(with(0, &[]).unwrap().devices(), ["CPU"]);
    assert!(with(0, &["CUDA0"]).unwrap_err().to_string().ends_with("use `devices: [CPU]`"));
    assert!(with(3, &["CPU"]).unwrap_err().to_string().contains("`gpu_layers: 3` with `devices` that include CPU"));
    let cpu = [device("CPU", DeviceKind::Cpu, 16 * GB)];
    let nowhere = ModelFootprint { gpu_layers: GpuLayers::Count(3), ..model("m", GB) };
    let error = place(&nowhere, &cpu).unwrap_err().to_string();
    assert!(error.contains("`gpu_layers: 3`, but there is no device other than the CPU"), "{error}");
}

#[test]
fn fewer_layers_are_offered_if_the_number_does_not_fit() {
    let footprint = ModelFootprint { gpu_layers: GpuLayers::Count(11), ..pinned(model("m", 15 * GB), &["CUDA0"]) };
    let error = place(&footprint, &one_gpu(16 * GB)).unwrap_err();
    insta::assert_snapshot!(error.remedies()[0].to_string());
}

#[test]
fn experts_of_as_few_layers_as_needed_are_on_the_cpu() {
    let placement = place(&experts(12 * GB), &one_gpu(16 * GB)).unwrap();
    assert_eq!((placement.gpu_layers, placement.cpu_expert_layers, placement.parts[0].layers), (None, 5, 10));
    insta::assert_snapshot!(placement.reason);
    let dense = place(&experts(120 * GB), &one_gpu(130 * GB)).unwrap();
    assert_eq!((dense.gpu_layers, dense.cpu_expert_layers), (Some(7), 10), "the rest of six layers and the output fit");
}

#[test]
fn all_experts_are_on_the_cpu_if_that_is_written() {
    let footprint = ModelFootprint { experts: ExpertPlacement::Cpu, ..experts(5 * GB) };
    let placement = place(&footprint, &machine()).unwrap();
    assert_eq!((placement.cpu_expert_layers, placement.gpu_layers), (10, None));
    assert_eq!(placement.host.unwrap().weight_bytes, 5 * GB / 10 * 9);
    assert_eq!(place(&pinned(footprint, &["CPU"]), &machine()).unwrap().cpu_expert_layers, 0, "all of it is there");
    let none = ModelFootprint { experts: ExpertPlacement::Cpu, ..model("m", GB) };
    assert!(place(&none, &machine()).unwrap_err().to_string().contains("but the model has no experts"));
}

#[test]
fn another_quantization_is_offered_in_figures() {
    // 16 bits per weight.
    let footprint = ModelFootprint { weight_elements: 8 * GB, ..model("m", 16 * GB) };
    let error = place(&footprint, &[device("CPU", DeviceKind::Cpu, 8 * GB)]).unwrap_err();
    let remedies: Vec<String> = error.remedies().iter().map(|remedy| format!("{remedy}\n")).collect();
    insta::assert_snapshot!(remedies.concat());
    let small = ModelFootprint { weight_elements: 64 * GB, ..footprint };
    let error = place(&small, &[device("CPU", DeviceKind::Cpu, 8 * GB)]).unwrap_err();
    assert!(error.remedies().is_empty(), "its 2 bits per weight are fewer than those of any offered");
}

#[test]
fn a_pinned_model_goes_partly_to_the_cpu_only_if_it_does_not_fit_on_the_empty_device() {
    use crate::{DeviceBytes, EvictionPlan, ResidentModel, plan_eviction};
    let resident = ResidentModel {
        model: "other".to_owned(),
        bytes: DeviceBytes::from([("CUDA0".to_owned(), 4 * GB)]),
        is_busy: false,
        is_draining: false,
        waiting_steps: 0,
        steps_until_use: None,
        idle: std::time::Duration::from_secs(5),
        load_time: std::time::Duration::from_secs(2),
    };
    let plan = |weights| {
        let footprint = pinned(model("m", weights), &["CUDA0"]);
        plan_eviction(&footprint, &one_gpu(16 * GB), std::slice::from_ref(&resident))
    };
    assert!(matches!(plan(6 * GB), EvictionPlan::Evict { .. }), "alone it fits");
    let EvictionPlan::Fits(placement) = plan(12 * GB) else { panic!() };
    assert!(placement.is_mixed() && placement.reason.starts_with("pinned to CUDA0: "), "{}", placement.reason);
}

#[test]
fn beside_others_a_model_keeps_the_cache_that_it_would_have_alone() {
    use crate::space::{Space, fit_within};
    let all = [device("CPU", DeviceKind::Cpu, 8 * GB)];
    let beside = |free, footprint: &ModelFootprint| {
        let free = [device("CPU", DeviceKind::Cpu, free)];
        fit_within(footprint, &Space { all: &all, free: &free }).map(|placement| placement.cache()).ok()
    };
    let fits = shrinkable(GB, 8);
    assert_eq!([beside(6 * GB, &fits), beside(5 * GB, &fits)], [Some(cache(8, 4096)), None]);
    let wide = shrinkable(GB, 20);
    assert_eq!(beside(8 * GB, &wide), Some(cache(13, 4096)));
    assert_eq!(beside(5 * GB, &wide), Some(cache(7, 4096)), "it has fewer sequences anyhow");
    let long = ModelFootprint { context_tokens: 65_536, ..fits };
    assert_eq!(beside(8 * GB, &long).map(|cache| cache.sequences), Some(1));
    assert_eq!(beside(7 * GB, &long), None, "its context would be shorter");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn more_memory_never_gives_a_smaller_cache_or_fewer_layers(footprint in footprint(), free in 0..2000u64, more in 0..500u64, cpu in 0..4000u64) {
        // Shares of another shape may round differently, so there is one GPU.
        let footprint = ModelFootprint { split: SplitMode::None, ..pinned(footprint, &["CUDA0"]) };
        let with = |free| place(&footprint, &[device("CUDA0", DeviceKind::Gpu, free), device("CPU", DeviceKind::Cpu, cpu)]);
        let Ok(little) = with(free) else { return Ok(()) };
        let much = with(free + more).unwrap();
        // What is tried first is better; within one stage, more fits.
        let items = footprint.items() as u32;
        let stage = |placement: &crate::Placement| (placement.gpu_layers.is_some(), placement.cpu_expert_layers > 0);
        prop_assert!(stage(&much) <= stage(&little));
        if stage(&much) == stage(&little) {
            prop_assert!(much.cache().tokens() >= little.cache().tokens());
        }
        if stage(&much) == stage(&little) && much.cache() == little.cache() {
            prop_assert!(much.gpu_layers.unwrap_or(items) >= little.gpu_layers.unwrap_or(items));
            prop_assert!(much.cpu_expert_layers <= little.cpu_expert_layers);
        }
    }
}

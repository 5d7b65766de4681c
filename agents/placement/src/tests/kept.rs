//! Models that are never evicted, and what they leave.

use proptest::prelude::*;

use super::{GB, device, machine, model, model_and_devices, pinned, whole};
use crate::{Device, DeviceBytes, DeviceKind, KeptModel, KeptOut, ModelFootprint, left_by, place};

fn kept(model: &str, bytes: &[(&str, u64)]) -> KeptModel {
    let bytes = bytes.iter().map(|(device, bytes)| ((*device).to_owned(), *bytes));
    KeptModel { model: model.to_owned(), bytes: bytes.collect() }
}

fn free(devices: &[Device]) -> Vec<u64> {
    devices.iter().map(|device| device.free).collect()
}

/// Why the model is refused beside these.
fn refused(footprint: &ModelFootprint, devices: &[Device], kept: &[KeptModel]) -> KeptOut {
    let refusal = place(footprint, &left_by(kept, devices)).unwrap_err();
    KeptOut::of(footprint, devices, kept, refusal).unwrap()
}

#[test]
fn the_memory_of_an_integrated_gpu_is_taken_from_the_machine_too() {
    let devices = [device("Vulkan0", DeviceKind::IntegratedGpu, 16 * GB), device("CPU", DeviceKind::Cpu, 16 * GB)];
    let router = kept("router", &[("Vulkan0", 10 * GB), ("CPU", GB)]);
    assert_eq!(free(&left_by(std::slice::from_ref(&router), &devices)), [6 * GB, 5 * GB]);
    let out = refused(&pinned(model("m", 8 * GB), &["CPU"]), &devices, &[router]);
    assert_eq!(out.holders, [kept("router", &[("CPU", 11 * GB)])]);
}

#[test]
fn those_are_named_that_hold_what_the_model_would_have_wherever_least_is_missing() {
    // Least is missing on the CPU, where the model on the GPU has but its process; alone, the other would be on the GPU.
    let devices = [device("CUDA0", DeviceKind::Gpu, 24 * GB), device("CPU", DeviceKind::Cpu, 8 * GB)];
    let on_gpu = kept("one", &[("CUDA0", 14 * GB), ("CPU", GB / 10)]);
    let on_cpu = kept("two", &[("CPU", 2 * GB)]);
    let out =
        refused(&ModelFootprint { split: crate::SplitMode::None, ..whole_or_cpu(13) }, &devices, &[on_gpu, on_cpu]);
    assert_eq!(out.holders, [kept("one", &[("CUDA0", 14 * GB)])]);
    assert_eq!(out.unload, ["one"]);
    assert!(out.to_string().ends_with("; one (14.0 GB of CUDA0) has `keep: forever`: it fits without one"), "{out}");
}

/// A model with so many gigabytes, in one layer.
fn whole_or_cpu(gigabytes: u64) -> ModelFootprint {
    ModelFootprint { layers: vec![super::layer(gigabytes * GB, 0)], ..model("m", 0) }
}

#[test]
fn the_fewest_are_named_without_which_it_fits() {
    let gpu = |name, gigabytes: u64| kept(name, &[("CUDA0", gigabytes * GB)]);
    let models = [gpu("one", 1), gpu("two", 4), gpu("three", 1)];
    let wanted = whole(pinned(model("m", 5 * GB), &["CUDA0"]));
    let out = refused(&wanted, &machine(), &models);
    assert_eq!(out.unload, ["two"]);
    assert_eq!(out.holders.iter().map(|holder| holder.model.as_str()).collect::<Vec<_>>(), ["one", "two", "three"]);
    let huge = model("m", 500 * GB);
    let refusal = place(&huge, &left_by(&models, &machine())).unwrap_err();
    assert_eq!(KeptOut::of(&huge, &machine(), &models, refusal), None, "it fits without them neither");
}

proptest! {
    #[test]
    fn without_the_models_that_are_to_be_unloaded_it_fits(
        (footprint, devices) in model_and_devices(),
        held in prop::collection::vec((any::<prop::sample::Index>(), 0..1500u64), 1..5),
    ) {
        let held = held.iter().enumerate().map(|(at, (device, bytes))| KeptModel {
            model: format!("k{at}"),
            bytes: DeviceBytes::from([(devices[device.index(devices.len())].name.clone(), *bytes)]),
        });
        let held: Vec<KeptModel> = held.collect();
        let Err(refusal) = place(&footprint, &left_by(&held, &devices)) else { return Ok(()) };
        match KeptOut::of(&footprint, &devices, &held, refusal) {
            None => prop_assert!(place(&footprint, &devices).is_err()),
            Some(out) => {
                prop_assert!(!out.unload.is_empty());
                prop_assert!(out.unload.iter().all(|name| out.holders.iter().any(|holder| holder.model == *name)));
                let stay: Vec<KeptModel> =
                    held.into_iter().filter(|model| !out.unload.contains(&model.model)).collect();
                prop_assert!(place(&footprint, &left_by(&stay, &devices)).is_ok());
            }
        }
    }
}

//! Eviction beside other models.

use std::time::Duration;

use proptest::prelude::*;

use super::{GB, device, devices, footprint, machine, model, pinned};
use crate::device::{allocated, demand};
use crate::space::{Space, fit_within};
use crate::{Device, DeviceBytes, DeviceKind, EvictionPlan, ModelFootprint, ResidentModel, place, plan_eviction};

fn engine(model: &str, device: &str, bytes: u64) -> ResidentModel {
    ResidentModel {
        model: model.to_owned(),
        bytes: DeviceBytes::from([(device.to_owned(), bytes)]),
        is_busy: false,
        is_draining: false,
        waiting_steps: 0,
        steps_until_use: None,
        idle: Duration::from_secs(5),
        load_time: Duration::from_secs(2),
    }
}

fn victims(footprint: &ModelFootprint, devices: &[Device], loaded: &[ResidentModel]) -> Vec<String> {
    match plan_eviction(footprint, devices, loaded) {
        EvictionPlan::Evict { victims, .. } => victims,
        other => panic!("{other:?}"),
    }
}

/// A GPU of 8 GB that two engines of 4 GB fill, and a model of 3 GB that must go there.
fn full() -> (ModelFootprint, Vec<Device>, Vec<ResidentModel>) {
    let devices = vec![device("CUDA0", DeviceKind::Gpu, 8 * GB), device("CPU", DeviceKind::Cpu, 16 * GB)];
    let loaded = vec![engine("a", "CUDA0", 4 * GB), engine("b", "CUDA0", 4 * GB)];
    (pinned(model("new", 3 * GB), &["CUDA0"]), devices, loaded)
}

#[test]
fn the_longest_idle_engine_is_evicted_unless_tasks_need_it_sooner() {
    let (footprint, devices, mut loaded) = full();
    loaded[1].idle = Duration::from_secs(9);
    assert_eq!(victims(&footprint, &devices, &loaded), ["b"]);
    loaded[1].steps_until_use = Some(3);
    assert_eq!(victims(&footprint, &devices, &loaded), ["a"], "no task is known to need a");
    loaded[0].steps_until_use = Some(1);
    assert_eq!(victims(&footprint, &devices, &loaded), ["b"], "b is needed later");
    loaded[1].waiting_steps = 1;
    assert_eq!(victims(&footprint, &devices, &loaded), ["a"], "a step waits for b");
    loaded[0].is_busy = true;
    assert_eq!(victims(&footprint, &devices, &loaded), ["b"], "a is busy");
}

#[test]
fn the_engine_that_is_cheapest_to_load_again_is_evicted_if_all_else_is_equal() {
    let (footprint, devices, mut loaded) = full();
    loaded[0].load_time = Duration::from_secs(9);
    assert_eq!(victims(&footprint, &devices, &loaded), ["b"]);
}

#[test]
fn one_sufficient_engine_is_evicted_rather_than_two() {
    let (footprint, devices, _) = full();
    let mut loaded = vec![engine("a", "CUDA0", GB), engine("b", "CUDA0", GB), engine("c", "CUDA0", 5 * GB)];
    loaded[0].idle = Duration::from_secs(900);
    loaded[1].idle = Duration::from_secs(900);
    assert_eq!(victims(&footprint, &devices, &loaded), ["c"]);
    loaded[2].waiting_steps = 1;
    loaded[2].bytes = DeviceBytes::from([("CUDA0".to_owned(), 4 * GB)]);
    assert_eq!(victims(&footprint, &devices, &loaded), ["a", "b"], "rather two without waiting steps");
}

#[test]
fn if_all_are_busy_it_waits_and_names_them() {
    let (footprint, devices, mut loaded) = full();
    loaded.iter_mut().for_each(|engine| engine.is_busy = true);
    let EvictionPlan::Wait { drain, reason } = plan_eviction(&footprint, &devices, &loaded) else { panic!() };
    assert_eq!(drain, ["a"]);
    assert_eq!(reason, "new waits for memory: a is busy");
}

#[test]
fn long_idle_engines_are_evicted_from_a_gpu_rather_than_the_cpu_used() {
    let (_, devices, mut loaded) = full();
    let footprint = model("new", 5 * GB);
    let outcome = |loaded: &[ResidentModel]| match plan_eviction(&footprint, &devices, loaded) {
        EvictionPlan::Fits(placement) => (placement.devices().join(" "), Vec::new()),
        EvictionPlan::Evict { victims, placement, .. } => (placement.devices().join(" "), victims),
        other => panic!("{other:?}"),
    };
    assert_eq!(outcome(&loaded), ("CPU".to_owned(), Vec::new()), "both were used a moment ago");
    loaded.iter_mut().for_each(|engine| engine.idle = Duration::from_secs(100));
    assert_eq!(outcome(&loaded), ("CUDA0".to_owned(), vec!["a".to_owned(), "b".to_owned()]));
    loaded[0].waiting_steps = 1;
    assert_eq!(
        outcome(&loaded),
        ("CUDA0".to_owned(), vec!["b".to_owned()]),
        "a step waits for a: a part is on the GPU"
    );
    loaded[1].waiting_steps = 1;
    assert_eq!(outcome(&loaded), ("CPU".to_owned(), Vec::new()), "steps wait for both");
}

#[test]
fn with_many_engines_a_minimal_set_is_found() {
    let devices = vec![device("CUDA0", DeviceKind::Gpu, 64 * GB), device("CPU", DeviceKind::Cpu, GB)];
    let loaded: Vec<ResidentModel> = (0..64).map(|at| engine(&format!("e{at}"), "CUDA0", GB)).collect();
    let footprint = pinned(model("new", 30 * GB), &["CUDA0"]);
    assert_eq!(victims(&footprint, &devices, &loaded).len(), 31);
}

#[test]
fn a_model_that_fits_on_no_empty_device_is_impossible() {
    let loaded = [engine("a", "CUDA0", GB)];
    assert!(matches!(plan_eviction(&model("new", 99 * GB), &machine(), &loaded), EvictionPlan::Impossible(_)));
}

fn loaded() -> impl Strategy<Value = Vec<ResidentModel>> {
    let names = ["CUDA0", "CUDA1", "RPC[host:0]", "CPU"].map(str::to_owned);
    let bytes = prop::collection::btree_map(prop::sample::select(names.to_vec()), 0..1200u64, 1..3);
    let one = (bytes, any::<[bool; 2]>(), 0..2u32, prop::option::of(0..9u32), 0..120u64);
    let engine = one.prop_map(|(bytes, [is_busy, is_draining], waiting, steps_until_use, idle)| ResidentModel {
        model: String::new(),
        bytes,
        is_busy,
        is_draining,
        waiting_steps: waiting,
        steps_until_use,
        idle: Duration::from_secs(idle),
        load_time: Duration::from_secs(idle % 7),
    });
    prop::collection::vec(engine, 0..6).prop_map(|mut all| {
        all.iter_mut().enumerate().for_each(|(at, engine)| engine.model = format!("e{at}"));
        all
    })
}

/// Its placement after the eviction of `victims`.
fn beside(
    footprint: &ModelFootprint,
    devices: &[Device],
    loaded: &[ResidentModel],
    victims: &[String],
) -> Option<crate::Placement> {
    let mut remaining = devices.to_vec();
    for engine in loaded.iter().filter(|engine| !victims.contains(&engine.model)) {
        remaining = allocated(&remaining, &engine.bytes);
    }
    fit_within(footprint, &Space { all: devices, free: &remaining }).ok()
}

fn sets(of: &[&ResidentModel]) -> Vec<Vec<String>> {
    let set = |mask: u32| (0..of.len()).filter(|at| mask >> at & 1 == 1).map(|at| of[at].model.clone()).collect();
    (0..1u32 << of.len()).map(set).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn victims_are_never_busy_and_never_more_than_required(footprint in footprint(), devices in devices(), loaded in loaded()) {
        let idle: Vec<&ResidentModel> = loaded.iter().filter(|engine| !engine.is_busy).collect();
        let unneeded: Vec<&ResidentModel> = idle.iter().copied().filter(|engine| engine.waiting_steps == 0).collect();
        let smallest = |of: &[&ResidentModel]| {
            let enough = |set: &Vec<String>| beside(&footprint, &devices, &loaded, set).is_some();
            sets(of).into_iter().filter(enough).map(|set| set.len()).min()
        };
        match plan_eviction(&footprint, &devices, &loaded) {
            EvictionPlan::Fits(found) => {
                prop_assert_eq!(beside(&footprint, &devices, &loaded, &[]), Some(found));
            }
            EvictionPlan::Evict { victims, placement: found, reason } => {
                prop_assert!(victims.iter().all(|name| idle.iter().any(|engine| engine.model == *name)));
                prop_assert!(victims.iter().all(|name| reason.contains(name.as_str())));
                prop_assert_eq!(beside(&footprint, &devices, &loaded, &victims), Some(found.clone()));
                if let Some(present) = beside(&footprint, &devices, &loaded, &[]) {
                    prop_assert!(found.cpu_rank() < present.cpu_rank(), "only for less of it on the CPU");
                    prop_assert!(victims.iter().all(|name| unneeded.iter().any(|engine| engine.model == *name)));
                } else {
                    prop_assert_eq!(Some(victims.len()), smallest(&unneeded).or_else(|| smallest(&idle)));
                }
            }
            EvictionPlan::Wait { drain, .. } => {
                prop_assert_eq!(smallest(&idle), None);
                prop_assert!(drain.iter().any(|name| loaded.iter().any(|engine| engine.is_busy && engine.model == *name)));
                prop_assert!(beside(&footprint, &devices, &loaded, &drain).is_some());
            }
            EvictionPlan::Impossible(error) => prop_assert_eq!(place(&footprint, &devices).err(), Some(error)),
        }
    }

    #[test]
    fn free_memory_shrinks_by_exactly_the_demand(devices in devices(), loaded in loaded()) {
        for engine in &loaded {
            let taken = demand(&engine.bytes, &devices);
            for ((before, after), taken) in devices.iter().zip(allocated(&devices, &engine.bytes)).zip(taken) {
                prop_assert_eq!(after.free, before.free.saturating_sub(taken));
            }
        }
    }
}

//! Room beside others.

use std::time::Duration;

use proptest::prelude::*;

use super::{GB, device, devices, machine, model, need, pinned};
use crate::device::{demand, less};
use crate::{Bytes, Decision, Device, Kind, Loaded, Need, place, room};

fn engine(model: &str, device: &str, bytes: u64) -> Loaded {
    Loaded {
        model: model.to_owned(),
        bytes: Bytes::from([(device.to_owned(), bytes)]),
        busy: false,
        draining: false,
        waiting: 0,
        next_need: None,
        idle: Duration::from_secs(5),
        load_cost: Duration::from_secs(2),
    }
}

fn victims(need: &Need, devices: &[Device], loaded: &[Loaded]) -> Vec<String> {
    match room(need, devices, loaded) {
        Decision::Unload { victims, .. } => victims,
        other => panic!("{other:?}"),
    }
}

/// A GPU of 8 GB that two engines of 4 GB fill, and a model of 3 GB that must go there.
fn full() -> (Need, Vec<Device>, Vec<Loaded>) {
    let devices = vec![device("CUDA0", Kind::Gpu, 8 * GB), device("CPU", Kind::Cpu, 16 * GB)];
    let loaded = vec![engine("a", "CUDA0", 4 * GB), engine("b", "CUDA0", 4 * GB)];
    (pinned(model("new", 3 * GB), &["CUDA0"]), devices, loaded)
}

#[test]
fn who_is_idle_longest_goes_unless_somebody_knows_better() {
    let (need, devices, mut loaded) = full();
    loaded[1].idle = Duration::from_secs(9);
    assert_eq!(victims(&need, &devices, &loaded), ["b"]);
    loaded[1].next_need = Some(3);
    assert_eq!(victims(&need, &devices, &loaded), ["a"], "nobody is known to need a");
    loaded[0].next_need = Some(1);
    assert_eq!(victims(&need, &devices, &loaded), ["b"], "b is needed later");
    loaded[1].waiting = 1;
    assert_eq!(victims(&need, &devices, &loaded), ["a"], "somebody waits for b");
    loaded[0].busy = true;
    assert_eq!(victims(&need, &devices, &loaded), ["b"], "a is busy");
}

#[test]
fn who_is_cheaper_to_load_again_goes_if_all_else_is_equal() {
    let (need, devices, mut loaded) = full();
    loaded[0].load_cost = Duration::from_secs(9);
    assert_eq!(victims(&need, &devices, &loaded), ["b"]);
}

#[test]
fn one_that_is_enough_goes_rather_than_two() {
    let (need, devices, _) = full();
    let mut loaded = vec![engine("a", "CUDA0", GB), engine("b", "CUDA0", GB), engine("c", "CUDA0", 5 * GB)];
    loaded[0].idle = Duration::from_secs(900);
    loaded[1].idle = Duration::from_secs(900);
    assert_eq!(victims(&need, &devices, &loaded), ["c"]);
    loaded[2].waiting = 1;
    loaded[2].bytes = Bytes::from([("CUDA0".to_owned(), 4 * GB)]);
    assert_eq!(victims(&need, &devices, &loaded), ["a", "b"], "rather two that nobody waits for");
}

#[test]
fn where_all_are_busy_it_waits_and_says_for_whom() {
    let (need, devices, mut loaded) = full();
    loaded.iter_mut().for_each(|engine| engine.busy = true);
    let Decision::Wait { drain, reason } = room(&need, &devices, &loaded) else { panic!() };
    assert_eq!(drain, ["a"]);
    assert_eq!(reason, "new waits for room: a is in the way and busy");
}

#[test]
fn a_gpu_is_freed_of_who_has_rested_rather_than_the_cpu_taken() {
    let (_, devices, mut loaded) = full();
    let need = model("new", 5 * GB);
    let place_of = |loaded: &[Loaded]| match room(&need, &devices, loaded) {
        Decision::Fits(place) => (place.devices().join(" "), Vec::new()),
        Decision::Unload { victims, place, .. } => (place.devices().join(" "), victims),
        other => panic!("{other:?}"),
    };
    assert_eq!(place_of(&loaded), ("CPU".to_owned(), Vec::new()), "both were used a moment ago");
    loaded.iter_mut().for_each(|engine| engine.idle = Duration::from_secs(100));
    assert_eq!(place_of(&loaded), ("CUDA0".to_owned(), vec!["a".to_owned(), "b".to_owned()]));
    loaded[0].waiting = 1;
    assert_eq!(place_of(&loaded), ("CPU".to_owned(), Vec::new()), "somebody waits for a");
}

#[test]
fn with_many_engines_a_set_is_found_from_which_nobody_can_be_left_out() {
    let devices = vec![device("CUDA0", Kind::Gpu, 64 * GB), device("CPU", Kind::Cpu, GB)];
    let loaded: Vec<Loaded> = (0..64).map(|at| engine(&format!("e{at}"), "CUDA0", GB)).collect();
    let need = pinned(model("new", 30 * GB), &["CUDA0"]);
    assert_eq!(victims(&need, &devices, &loaded).len(), 31);
}

#[test]
fn what_fits_on_no_empty_device_never_fits() {
    let loaded = [engine("a", "CUDA0", GB)];
    assert!(matches!(room(&model("new", 99 * GB), &machine(), &loaded), Decision::Never(_)));
}

fn loaded() -> impl Strategy<Value = Vec<Loaded>> {
    let names = ["CUDA0", "CUDA1", "RPC[host:0]", "CPU"].map(str::to_owned);
    let bytes = prop::collection::btree_map(prop::sample::select(names.to_vec()), 0..1200u64, 1..3);
    let one = (bytes, any::<[bool; 2]>(), 0..2u32, prop::option::of(0..9u32), 0..120u64);
    let engine = one.prop_map(|(bytes, [busy, draining], waiting, next_need, idle)| Loaded {
        model: String::new(),
        bytes,
        busy,
        draining,
        waiting,
        next_need,
        idle: Duration::from_secs(idle),
        load_cost: Duration::from_secs(idle % 7),
    });
    prop::collection::vec(engine, 0..6).prop_map(|mut all| {
        all.iter_mut().enumerate().for_each(|(at, engine)| engine.model = format!("e{at}"));
        all
    })
}

/// Where it goes if only those in `stay` stay.
fn beside(need: &Need, devices: &[Device], loaded: &[Loaded], gone: &[String]) -> Option<crate::Place> {
    let mut left = devices.to_vec();
    for engine in loaded.iter().filter(|engine| !gone.contains(&engine.model)) {
        left = less(&left, &engine.bytes);
    }
    place(need, &left).ok()
}

fn sets(of: &[&Loaded]) -> Vec<Vec<String>> {
    let set = |mask: u32| (0..of.len()).filter(|at| mask >> at & 1 == 1).map(|at| of[at].model.clone()).collect();
    (0..1u32 << of.len()).map(set).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn victims_are_never_busy_and_never_more_than_needed(need in need(), devices in devices(), loaded in loaded()) {
        let idle: Vec<&Loaded> = loaded.iter().filter(|engine| !engine.busy).collect();
        let missed: Vec<&Loaded> = idle.iter().copied().filter(|engine| engine.waiting == 0).collect();
        let smallest = |of: &[&Loaded]| {
            let enough = |set: &Vec<String>| beside(&need, &devices, &loaded, set).is_some();
            sets(of).into_iter().filter(enough).map(|set| set.len()).min()
        };
        match room(&need, &devices, &loaded) {
            Decision::Fits(found) => {
                prop_assert_eq!(beside(&need, &devices, &loaded, &[]), Some(found));
            }
            Decision::Unload { victims, place: found, reason } => {
                prop_assert!(victims.iter().all(|name| idle.iter().any(|engine| engine.model == *name)));
                prop_assert!(victims.iter().all(|name| reason.contains(name.as_str())));
                prop_assert_eq!(beside(&need, &devices, &loaded, &victims), Some(found.clone()));
                if beside(&need, &devices, &loaded, &[]).is_none() {
                    prop_assert_eq!(Some(victims.len()), smallest(&missed).or_else(|| smallest(&idle)));
                } else {
                    prop_assert!(found.host.is_some(), "only for a better device than the CPU");
                    prop_assert!(victims.iter().all(|name| missed.iter().any(|engine| engine.model == *name)));
                }
            }
            Decision::Wait { drain, .. } => {
                prop_assert_eq!(smallest(&idle), None);
                prop_assert!(drain.iter().any(|name| loaded.iter().any(|engine| engine.busy && engine.model == *name)));
                prop_assert!(beside(&need, &devices, &loaded, &drain).is_some());
            }
            Decision::Never(refusal) => prop_assert_eq!(place(&need, &devices).err(), Some(refusal)),
        }
    }

    #[test]
    fn what_is_taken_is_never_more_than_what_goes_missing(devices in devices(), loaded in loaded()) {
        for engine in &loaded {
            let taken = demand(&engine.bytes, &devices);
            for ((before, after), taken) in devices.iter().zip(less(&devices, &engine.bytes)).zip(taken) {
                prop_assert_eq!(after.free, before.free.saturating_sub(taken));
            }
        }
    }
}

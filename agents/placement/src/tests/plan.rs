//! Plans for a whole catalog.

use proptest::prelude::*;

use super::{GB, machine, model, model_and_devices, pinned, whole};
use crate::device::allocated;
use crate::space::{Space, fit_within};
use crate::{DeviceBytes, KeptModel, ModelFootprint, PlacementPlan, left_by, place, plan};

fn report(plan: &PlacementPlan) -> String {
    let placed = plan.placed.iter().map(|p| format!("{}: {}: {}\n", p.model, p.summary(), p.reason));
    let unplaced = plan.unplaced.iter().map(|model| {
        let remedies = model.error.remedies().iter().map(|remedy| format!("  {remedy}\n"));
        format!("{}\n{}", model.reason, remedies.collect::<String>())
    });
    placed.chain(unplaced).collect()
}

#[test]
fn pinned_models_are_placed_first_and_models_that_do_not_fit_are_swapped() {
    let footprints = [
        model("small", GB / 2),
        model("big", 5 * GB),
        pinned(model("vision", 4 * GB), &["CUDA1"]),
        pinned(model("coder", 7 * GB), &["CUDA0"]),
        pinned(model("critic", 2 * GB), &["CUDA0"]),
        model("whale", 300 * GB),
    ];
    insta::assert_snapshot!(report(&plan(&footprints, &machine(), &[])));
}

#[test]
fn models_that_stay_are_placed_first_and_what_they_leave_is_all_that_others_have() {
    let kept = |footprint| ModelFootprint { is_kept: true, ..footprint };
    let footprints = [
        kept(model("router", 2 * GB)),
        model("small", 4 * GB),
        whole(model("large", 7 * GB)),
        pinned(whole(model("coder", 5 * GB)), &["CUDA1"]),
        model("whale", 300 * GB),
    ];
    insta::assert_snapshot!(report(&plan(&footprints, &machine(), &[])));
    // It is loaded elsewhere already.
    let loaded = KeptModel { model: "router".to_owned(), bytes: DeviceBytes::from([("CUDA0".to_owned(), 2 * GB)]) };
    insta::assert_snapshot!(report(&plan(&footprints[1..], &machine(), &[loaded])));
}

proptest! {
    #[test]
    fn a_plan_overfills_no_device_and_places_every_model_that_fits(
        (first, devices) in model_and_devices(),
        others in prop::collection::vec(model_and_devices(), 0..5),
        kept in prop::collection::vec(prop::bool::weighted(0.3), 6),
        loaded in prop::collection::vec((any::<prop::sample::Index>(), 0..1000u64), 0..3),
    ) {
        let mut footprints = vec![first];
        footprints.extend(others.into_iter().map(|(footprint, _)| footprint));
        for (at, footprint) in footprints.iter_mut().enumerate() {
            footprint.model = format!("m{at}");
            footprint.is_kept = kept[at];
        }
        let loaded: Vec<KeptModel> = loaded.iter().enumerate().map(|(at, (device, bytes))| KeptModel {
            model: format!("k{at}"),
            bytes: DeviceBytes::from([(devices[device.index(devices.len())].name.clone(), *bytes)]),
        }).collect();
        let plan = plan(&footprints, &devices, &loaded);
        let mut models: Vec<&str> = plan.placed.iter().map(|placement| placement.model.as_str()).collect();
        models.extend(plan.unplaced.iter().map(|unplaced| unplaced.model.as_str()));
        models.sort_unstable();
        let all: Vec<String> = (0..footprints.len()).map(|at| format!("m{at}")).collect();
        prop_assert_eq!(models, all);
        let is_kept = |model: &str| footprints.iter().any(|footprint| footprint.is_kept && footprint.model == model);
        let stay = plan.placed.iter().filter(|placement| is_kept(&placement.model));
        let stay = stay.map(|placement| KeptModel { model: placement.model.clone(), bytes: placement.bytes() });
        let stay: Vec<KeptModel> = loaded.iter().cloned().chain(stay).collect();
        let left = left_by(&stay, &devices);
        let mut remaining = left_by(&loaded, &devices);
        for placement in &plan.placed {
            for (device, taken) in remaining.iter().zip(crate::device::demand(&placement.bytes(), &remaining)) {
                prop_assert!(taken <= device.free);
            }
            remaining = allocated(&remaining, &placement.bytes());
        }
        for unplaced in &plan.unplaced {
            let footprint = footprints.iter().find(|footprint| footprint.model == unplaced.model).unwrap();
            // One that stays need not fit beside those that stay too but came later.
            prop_assert!(footprint.is_kept || place(footprint, &left).is_ok() == unplaced.alone.is_some());
            prop_assert!(!footprint.is_kept || unplaced.alone.is_none());
            let fits_somewhere = unplaced.alone.is_some() || unplaced.kept_out.is_some();
            prop_assert_eq!(place(footprint, &devices).is_ok(), fits_somewhere);
            let space = Space { all: &left, free: &remaining };
            prop_assert!(footprint.is_kept || fit_within(footprint, &space).is_err());
        }
    }
}

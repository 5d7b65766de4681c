//! Plans for a whole catalog.

use proptest::prelude::*;

use super::{GB, machine, model, model_and_devices, pinned};
use crate::device::allocated;
use crate::space::{Space, fit_within};
use crate::{PlacementPlan, place, plan};

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
    insta::assert_snapshot!(report(&plan(&footprints, &machine())));
}

proptest! {
    #[test]
    fn a_plan_overfills_no_device_and_places_every_model_that_fits(
        (first, devices) in model_and_devices(),
        others in prop::collection::vec(model_and_devices(), 0..5),
    ) {
        let mut footprints = vec![first];
        footprints.extend(others.into_iter().map(|(footprint, _)| footprint));
        for (at, footprint) in footprints.iter_mut().enumerate() {
            footprint.model = format!("m{at}");
        }
        let plan = plan(&footprints, &devices);
        let mut models: Vec<&str> = plan.placed.iter().map(|placement| placement.model.as_str()).collect();
        models.extend(plan.unplaced.iter().map(|unplaced| unplaced.model.as_str()));
        models.sort_unstable();
        let all: Vec<String> = (0..footprints.len()).map(|at| format!("m{at}")).collect();
        prop_assert_eq!(models, all);
        let mut remaining = devices.clone();
        for placement in &plan.placed {
            for (device, taken) in remaining.iter().zip(crate::device::demand(&placement.bytes(), &remaining)) {
                prop_assert!(taken <= device.free);
            }
            remaining = allocated(&remaining, &placement.bytes());
        }
        for unplaced in &plan.unplaced {
            let footprint = footprints.iter().find(|footprint| footprint.model == unplaced.model).unwrap();
            prop_assert_eq!(place(footprint, &devices).is_ok(), unplaced.alone.is_some());
            let space = Space { all: &devices, free: &remaining };
            prop_assert!(fit_within(footprint, &space).is_err());
        }
    }
}

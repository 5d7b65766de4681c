//! A whole catalog.

use proptest::prelude::*;

use super::{GB, machine, model, pinned, world};
use crate::device::less;
use crate::{Plan, place, plan};

fn told(plan: &Plan) -> String {
    let placed = plan.placed.iter().map(|place| format!("{}: {}: {}\n", place.model, place.figures(), place.reason));
    let unplaced = plan.unplaced.iter().map(|model| {
        let remedies = model.refusal.remedies().iter().map(|remedy| format!("  {remedy}\n"));
        format!("{}\n{}", model.reason, remedies.collect::<String>())
    });
    placed.chain(unplaced).collect()
}

#[test]
fn who_is_pinned_is_placed_first_and_who_finds_no_room_takes_turns() {
    let needs = [
        model("small", GB / 2),
        model("big", 5 * GB),
        pinned(model("vision", 4 * GB), &["CUDA1"]),
        pinned(model("coder", 7 * GB), &["CUDA0"]),
        pinned(model("critic", 2 * GB), &["CUDA0"]),
        model("whale", 300 * GB),
    ];
    insta::assert_snapshot!(told(&plan(&needs, &machine())));
}

proptest! {
    #[test]
    fn a_plan_overfills_nothing_and_leaves_nobody_out_without_need(
        (first, devices) in world(),
        others in prop::collection::vec(world(), 0..5),
    ) {
        let mut needs = vec![first];
        needs.extend(others.into_iter().map(|(need, _)| need));
        for (at, need) in needs.iter_mut().enumerate() {
            need.model = format!("m{at}");
        }
        let plan = plan(&needs, &devices);
        let mut models: Vec<&str> = plan.placed.iter().map(|place| place.model.as_str()).collect();
        models.extend(plan.unplaced.iter().map(|unplaced| unplaced.model.as_str()));
        models.sort_unstable();
        let all: Vec<String> = (0..needs.len()).map(|at| format!("m{at}")).collect();
        prop_assert_eq!(models, all);
        let mut left = devices.clone();
        for place in &plan.placed {
            for (device, taken) in left.iter().zip(crate::device::demand(&place.bytes(), &left)) {
                prop_assert!(taken <= device.free);
            }
            left = less(&left, &place.bytes());
        }
        for unplaced in &plan.unplaced {
            let need = needs.iter().find(|need| need.model == unplaced.model).unwrap();
            prop_assert_eq!(place(need, &devices).is_ok(), unplaced.alone.is_some());
            prop_assert!(place(need, &left).is_err());
        }
    }
}

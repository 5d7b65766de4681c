//! What people read.

use super::{GB, device, machine, model, pinned};
use crate::{Device, Kind, Need, Split, bytes, place};

fn told(need: &Need, devices: &[Device]) -> String {
    match place(need, devices) {
        Ok(place) => format!("{}: {}\n", place.figures(), place.reason),
        Err(refusal) => {
            let remedies = refusal.remedies().iter().map(|remedy| format!("  {remedy}\n"));
            format!("{refusal}\n{}", remedies.collect::<String>())
        }
    }
}

#[test]
fn places_say_why() {
    let cpu = [device("CPU", Kind::Cpu, 16 * GB)];
    let far = [device("RPC[10.0.0.2:50052]", Kind::Rpc, 20 * GB), device("CPU", Kind::Cpu, 2 * GB)];
    let split = Need { shares: Some(vec![3.0, 1.0]), ..pinned(model("m", 2 * GB), &["CUDA0", "CUDA1"]) };
    let all = [
        told(&model("m", 5 * GB), &machine()),
        told(&model("m", 10 * GB), &machine()),
        told(&model("m", 15 * GB), &machine()),
        told(&model("m", 5 * GB), &cpu),
        told(&model("m", 5 * GB), &far),
        told(&pinned(model("m", GB), &["CUDA0"]), &machine()),
        told(&split, &machine()),
    ];
    insta::assert_snapshot!(all.concat());
}

#[test]
fn refusals_say_what_is_missing_where_and_what_helps() {
    let wide = Need { sequences: 12, ..model("m", 3 * GB) };
    let mut recast = pinned(model("m", 8 * GB), &["CUDA0"]);
    recast.layers.iter_mut().for_each(|layer| layer.in_file /= 3);
    let all = [
        told(&pinned(wide.clone(), &["CUDA0"]), &machine()),
        told(&pinned(Need { tokens: 40_960, sequences: 1, ..wide.clone() }, &["CUDA1"]), &machine()),
        told(&Need { split: Split::None, ..model("m", 11 * GB) }, &machine()[..2]),
        told(&Need { tokens: 65_536, ..wide }, &machine()),
        told(&model("m", 100 * GB), &machine()),
        told(&pinned(model("m", GB), &["cuda0"]), &machine()),
        told(&pinned(model("m", GB), &["Metal"]), &machine()),
        told(&pinned(model("m", GB), &["CUDA0", "CPU"]), &machine()),
        told(&Need { shares: Some(vec![1.0]), ..pinned(model("m", GB), &["CUDA0", "CUDA1"]) }, &machine()),
        told(&model("m", GB), &[]),
        told(&recast, &machine()),
    ];
    insta::assert_snapshot!(all.concat());
}

#[test]
fn sizes_change_their_unit() {
    let shown = [0, 999, 1000, 98_362_432, 999_999_999, 1_234_567_890, 9_900_000_000_000_000].map(bytes);
    assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "98.4 MB", "1.0 GB", "1.2 GB", "9900 TB"]);
}

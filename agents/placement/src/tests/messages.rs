//! The texts for humans.

use super::{GB, device, machine, model, pinned, whole};
use crate::{Device, DeviceKind, GpuLayers, ModelFootprint, SplitMode, place};

fn report(footprint: &ModelFootprint, devices: &[Device]) -> String {
    match place(footprint, devices) {
        Ok(placement) => format!("{}: {}\n", placement.summary(), placement.reason),
        Err(error) => {
            let remedies = error.remedies().iter().map(|remedy| format!("  {remedy}\n"));
            format!("{error}\n{}", remedies.collect::<String>())
        }
    }
}

#[test]
fn placements_give_their_reason() {
    let cpu = [device("CPU", DeviceKind::Cpu, 16 * GB)];
    let remote = [device("RPC[10.0.0.2:50052]", DeviceKind::Rpc, 20 * GB), device("CPU", DeviceKind::Cpu, 2 * GB)];
    let split =
        ModelFootprint { tensor_split: Some(vec![3.0, 1.0]), ..pinned(model("m", 2 * GB), &["CUDA0", "CUDA1"]) };
    let all = [
        report(&model("m", 5 * GB), &machine()),
        report(&model("m", 10 * GB), &machine()),
        report(&model("m", 15 * GB), &machine()),
        report(&model("m", 5 * GB), &cpu),
        report(&model("m", 5 * GB), &remote),
        report(&pinned(model("m", GB), &["CUDA0"]), &machine()),
        report(&split, &machine()),
        report(&ModelFootprint { gpu_layers: GpuLayers::Count(4), ..model("m", 5 * GB) }, &machine()),
        report(&ModelFootprint { gpu_layers: GpuLayers::Count(0), ..model("m", 5 * GB) }, &machine()),
    ];
    insta::assert_snapshot!(all.concat());
}

#[test]
fn errors_name_the_shortage_and_the_remedies() {
    let wide = whole(ModelFootprint { sequences: 12, min_sequences: 12, ..model("m", 3 * GB) });
    let mut dequantized = whole(pinned(model("m", 8 * GB), &["CUDA0"]));
    dequantized.layers.iter_mut().for_each(|layer| layer.file_bytes /= 3);
    let mut machines = machine();
    machines.push(device("RPC[10.0.0.2:50052]", DeviceKind::Rpc, 8 * GB));
    let cpu = |free| [device("CPU", DeviceKind::Cpu, free)];
    let all = [
        report(&pinned(wide.clone(), &["CUDA0"]), &machine()),
        report(
            &pinned(
                ModelFootprint { context_tokens: 40_960, min_context_tokens: 40_960, ..whole(model("m", 3 * GB)) },
                &["CUDA1"],
            ),
            &machine(),
        ),
        report(&ModelFootprint { split: SplitMode::None, ..model("m", 11 * GB) }, &machine()[..2]),
        report(
            &ModelFootprint { context_tokens: 65_536, min_context_tokens: 65_536, gpu_layers: GpuLayers::Auto, ..wide },
            &machine(),
        ),
        report(&model("m", 100 * GB), &machine()),
        report(&pinned(model("m", GB), &["cuda0"]), &machine()),
        report(&pinned(model("m", GB), &["Metal"]), &machine()),
        report(&pinned(model("m", GB), &["CUDA0", "CPU"]), &machine()),
        report(
            &ModelFootprint { tensor_split: Some(vec![1.0]), ..pinned(model("m", GB), &["CUDA0", "CUDA1"]) },
            &machine(),
        ),
        report(&model("m", GB), &[]),
        report(&dequantized, &machine()),
        report(
            &ModelFootprint {
                tensor_split: Some(vec![1.0, 5.0]),
                ..pinned(whole(model("m", 7 * GB)), &["CUDA0", "CUDA1"])
            },
            &machine(),
        ),
        report(
            &ModelFootprint { split: SplitMode::Row, ..pinned(whole(model("m", 9 * GB)), &["RPC[10.0.0.2:50052]"]) },
            &machines,
        ),
        report(
            &ModelFootprint { weight_elements: 8 * GB, ..pinned(model("m", 16 * GB), &["CPU"]) },
            &cpu(4_500_000_000),
        ),
        report(&ModelFootprint { weight_elements: 8 * GB, ..pinned(model("m", 16 * GB), &["CPU"]) }, &cpu(3 * GB)),
    ];
    insta::assert_snapshot!(all.concat());
}

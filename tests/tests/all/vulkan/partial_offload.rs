//! Layers and experts that stay on the CPU beside a Vulkan device: the memory of both is that of the plan, by what llama.cpp logs
//! and by what it allocates of Vulkan.

use std::collections::HashMap;

use artel_proto::v1;
use artel_tests::random_models::RandomModel;
use artel_tests::{Daemon, daemon};

use super::{answer, buffer_mib, with_two_devices};

const MIB_BYTES: f64 = 1_048_576.0;
/// The device.
const DEVICE: &str = "Vulkan0";
/// Layers on the device: all with the output, most, half, one item, which is the output, and none.
const LAYERS: [u32; 5] = [31, 24, 15, 1, 0];
/// What the plan adds for the process of an engine on the CPU, beside the model.
const PROCESS_MIB: f64 = 42.0;

/// A model and a role of it, `of-NAME`.
fn document(name: &str, file: &str, more: &str) -> String {
    format!(
        "---\nmodel: {name}\nfile: {file}\ncontext: 512\nsequences: 1\nweights: file\n{more}\n---\nrole: of-{name}\n\
         description: D.\nmodel: {name}\nprompt: You are a geography expert.\nsampling: {{temperature: 0, max_tokens: 10}}\n\
         limits: {{timeout: 10m, idle: 5m, retries: 0}}\n"
    )
}

/// The demo model with so many layers on the device.
fn layered(layers: u32) -> String {
    // Without a layer there, the model is pinned to nothing.
    let pin = if layers == 0 { String::new() } else { format!("\ndevices: [{DEVICE}]") };
    document(&format!("n{layers}"), "SmolLM2-135M-Instruct.Q4_1.gguf", &format!("gpu_layers: {layers}{pin}"))
}

/// Mixtures of experts, whose gates are tensors of their own or fused ones, on the device wholly and without their experts.
fn mixtures() -> [(&'static str, RandomModel); 2] {
    [("split", RandomModel::new("qwen3moe")), ("fused", RandomModel::new("hy_v3"))]
}

fn mixture(name: &str, model: &RandomModel) -> String {
    let file = model.file().display().to_string();
    document(&format!("{name}-whole"), &file, &format!("devices: [{DEVICE}]"))
        + &document(&format!("{name}-experts"), &file, &format!("devices: [{DEVICE}]\nexperts: cpu"))
}

/// A daemon with these documents, and a pinned model for its router, which would take the device.
async fn started(yaml: &str, variables: &[(&str, &str)]) -> Daemon {
    let embedding = "model: minilm\nfile: all-MiniLM-L6-v2.F16.gguf\nuse: embedding\ndevices: [CPU]\n";
    let builder = with_two_devices(daemon().with_yaml(&format!("{embedding}{yaml}")));
    let builder = variables.iter().fold(builder, |builder, (name, value)| builder.with_env(name, value));
    builder.start().await
}

async fn placed(daemon: &Daemon, model: &str) -> v1::PlacedModel {
    let request = v1::GetPlacementRequest { models: vec![model.to_owned()] };
    let placement = daemon.engines().get_placement(request).await.unwrap().into_inner();
    let found = placement.placed.iter().find(|placed| placed.model == model).cloned();
    found.unwrap_or_else(|| panic!("{model} is not placed: {placement:?}"))
}

fn planned_mib(placed: &v1::PlacedModel, device: &str) -> f64 {
    placed.parts.iter().filter(|part| part.device == device).map(|part| part.bytes as f64 / MIB_BYTES).sum()
}

/// MiB that llama.cpp logged of a kind for a model on a device.
fn sum_mib(log: &str, model: &str, device: &str, kind: &str) -> f64 {
    buffer_mib(log, model, device, kind).iter().sum()
}

/// MiB that llama.cpp logged for a model on a device beside its weights: the cache, and the largest of the buffers to compute in.
fn buffers_mib(log: &str, model: &str, device: &str) -> f64 {
    let largest = |kind| buffer_mib(log, model, device, kind).into_iter().fold(0.0, f64::max);
    sum_mib(log, model, device, "KV") + largest("compute") + largest("output")
}

/// MiB of a device that llama.cpp allocated of Vulkan for a model, by its own log of each allocation. Memory of the host that the
/// device can read is not the device's, though lavapipe has one memory for both.
fn allocated_mib(log: &str, model: &str) -> f64 {
    let named = format!("\"model\":\"{model}\"");
    let (mut buffers, mut is_for_host) = (HashMap::new(), false);
    for line in log.lines().filter(|line| line.contains(&named)) {
        let Some((_, message)) = line.split_once("ggml_vulkan memory: ") else { continue };
        // The purpose is logged first, and then the allocation.
        if message.contains("host_malloc(") || message.contains("staging_buffer(") {
            is_for_host = true;
        } else if let Some((sign, mib, address)) = allocation(message) {
            match sign {
                '+' if is_for_host => is_for_host = false,
                '+' => drop(buffers.insert(address.to_owned(), mib)),
                _ => drop(buffers.remove(address)),
            }
        }
    }
    buffers.values().sum()
}

/// Sign, MiB and address in `Vulkan0: +1.50 MiB device at 0x5a. Total device: ...`.
fn allocation(message: &str) -> Option<(char, f64, &str)> {
    let words: Vec<&str> = message.split_once(": ")?.1.split_whitespace().collect();
    let [size, unit, _, "at", address, ..] = words[..] else { return None };
    let (sign, size) = (size.chars().next()?, size.get(1..)?.parse::<f64>().ok()?);
    let unit_bytes = match unit {
        "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => MIB_BYTES,
        "GiB" => 1024.0 * MIB_BYTES,
        _ => return None,
    };
    matches!(sign, '+' | '-').then_some((sign, size * unit_bytes / MIB_BYTES, address))
}

fn assert_within_a_tenth(planned: f64, found: f64, what: &str) {
    println!("{what}: {planned:.1} MiB planned, {found:.1} MiB found");
    // Nothing is planned where nothing is.
    assert!(
        planned == found || (0.9..1.1).contains(&(planned / found)),
        "{what}: {planned} MiB planned, {found} MiB found"
    );
}

async fn load(daemon: &Daemon, model: &str) {
    let request = v1::LoadRequest { model: model.to_owned() };
    daemon.engines().load(request).await.unwrap();
}

async fn unload(daemon: &Daemon, model: &str) {
    daemon.engines().unload(v1::UnloadRequest { model: model.to_owned(), interrupt: false }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_and_their_memory_are_where_the_plan_says() {
    let daemon = started(&LAYERS.map(layered).concat(), &[("ARTEL_LOG", "info,llama_cpp=debug")]).await;
    // The input, and the weights that the device has when it has all of them, as the first of the models does.
    let (mut input, mut whole) = (0.0, 0.0);
    for count in LAYERS {
        let name = format!("n{count}");
        assert!(!answer(&daemon, &format!("of-{name}")).await.is_empty(), "{count} layers");
        let placed = placed(&daemon, &name).await;
        assert_eq!(placed.gpu_layers, Some(count).filter(|count| (1..31).contains(count)), "{placed:?}");
        let layers = |device| placed.parts.iter().find(|part| part.device == device).map(|part| part.layers);
        // The output counts as one, and is the last.
        let expected = count.checked_sub(1);
        assert_eq!(layers(DEVICE), expected, "{placed:?}");
        assert_eq!(layers("CPU"), Some(30 - expected.unwrap_or(0)), "{placed:?}");
        let log = daemon.whole_log().await;
        let on_device = sum_mib(&log, &name, DEVICE, "model");
        if count == LAYERS[0] {
            (input, whole) = (sum_mib(&log, &name, "CPU_Mapped", "model"), on_device);
        }
        let what = format!("{count} layers on {DEVICE}");
        assert_within_a_tenth(
            planned_mib(&placed, DEVICE),
            on_device + buffers_mib(&log, &name, DEVICE),
            &format!("{what}, there"),
        );
        // The CPU maps the file from its first weight to its last one, also those between that are on the device. The input is the
        // output: one memory has it once.
        let on_cpu = if count == 0 { whole } else { input + whole - on_device };
        let buffers = ["CPU", "Vulkan_Host"].map(|name_of| buffers_mib(&log, &name, name_of)).iter().sum::<f64>();
        let planned = planned_mib(&placed, "CPU");
        assert_within_a_tenth(planned, on_cpu + buffers + PROCESS_MIB, &format!("{what}, the CPU"));
        unload(&daemon, &name).await;
    }
}

/// lavapipe of Mesa 22 crashes when it computes experts, so nothing is asked where they are on the device.
#[tokio::test(flavor = "multi_thread")]
async fn experts_stay_on_the_cpu() {
    let models = mixtures();
    let yaml: String = models.iter().map(|(name, model)| mixture(name, model)).collect();
    let daemon = started(&yaml, &[("ARTEL_LOG", "info,llama_cpp=debug")]).await;
    for (name, _) in &models {
        let mut on_device = Vec::new();
        for place in ["whole", "experts"] {
            let model = format!("{name}-{place}");
            load(&daemon, &model).await;
            let placed = placed(&daemon, &model).await;
            assert_eq!(placed.cpu_expert_layers > 0, place == "experts", "{placed:?}");
            let log = daemon.whole_log().await;
            let weights = sum_mib(&log, &model, DEVICE, "model");
            let found = weights + buffers_mib(&log, &model, DEVICE);
            assert_within_a_tenth(planned_mib(&placed, DEVICE), found, &model);
            on_device.push(weights);
            if place == "experts" {
                assert!(!answer(&daemon, &format!("of-{model}")).await.is_empty(), "{model}");
            }
            unload(&daemon, &model).await;
        }
        assert!(on_device[1] < 0.8 * on_device[0], "{name}: MiB of weights on the device are {on_device:?}");
    }
}

/// In a daemon of its own: what llama.cpp prints of allocations goes past its log, and lines of the log would come between.
#[tokio::test(flavor = "multi_thread")]
async fn vulkan_allocates_what_the_plan_says() {
    let on_device = LAYERS.into_iter().filter(|count| *count > 0);
    let mixtures = mixtures();
    let yaml: String =
        on_device.clone().map(layered).chain(mixtures.iter().map(|(name, model)| mixture(name, model))).collect();
    let variables = [("ARTEL_LOG", "error,engine=warn"), ("GGML_VK_MEMORY_LOGGER", "1")];
    let daemon = started(&yaml, &variables).await;
    let experts = mixtures.iter().flat_map(|(name, _)| ["whole", "experts"].map(|place| format!("{name}-{place}")));
    for name in on_device.map(|count| format!("n{count}")).chain(experts) {
        match name.ends_with("-whole") {
            true => load(&daemon, &name).await,
            false => assert!(!answer(&daemon, &format!("of-{name}")).await.is_empty(), "{name}"),
        }
        let planned = planned_mib(&placed(&daemon, &name).await, DEVICE);
        assert_within_a_tenth(planned, allocated_mib(&daemon.whole_log().await, &name), &format!("{name} on {DEVICE}"));
        unload(&daemon, &name).await;
    }
}

#[test]
fn allocations_are_read_from_their_lines() {
    let line = "Vulkan0: +1.50 MiB device at 0x5a. Total device: 1.50 MiB, total host: 0 B";
    assert_eq!(allocation(line), Some(('+', 1.5, "0x5a.")));
    assert_eq!(allocation("Vulkan0: -2048 B host at 0x5a. Total"), Some(('-', 1.0 / 512.0, "0x5a.")));
    assert_eq!(allocation("ggml_vk_host_malloc(4096)"), None);
}

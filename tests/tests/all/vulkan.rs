//! Models on Vulkan devices: pinned, split, and with the answers of the CPU.
//!
//! The driver is Mesa's lavapipe, one device that computes on the processor. llama.cpp ignores such a device unless it is
//! named, and takes one that is named twice for two, with contexts, queues and buffers of their own.

mod partial_offload;

use std::fs;
use std::path::PathBuf;

use artel_proto::v1;
use artel_tests::{Cli, Daemon, DaemonBuilder, TaskOutcome, daemon, repository, task_request};

/// Environment variables that make two devices of lavapipe and hide all others.
fn variables() -> Vec<(&'static str, String)> {
    let files = fs::read_dir("/usr/share/vulkan/icd.d").expect("Mesa's Vulkan drivers are installed");
    let is_lavapipe = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("lvp_icd");
    let driver = files.map(|file| file.unwrap().path()).find(is_lavapipe).expect("lavapipe is among them");
    let driver = driver.display().to_string();
    // Vulkan loaders before 1.3.207 read the first name, later ones both.
    vec![
        ("VK_ICD_FILENAMES", driver.clone()),
        ("VK_DRIVER_FILES", driver),
        ("GGML_VK_VISIBLE_DEVICES", "0,0".to_owned()),
    ]
}

fn with_two_devices(builder: DaemonBuilder) -> DaemonBuilder {
    variables().into_iter().fold(builder, |builder, (name, value)| builder.with_env(name, &value))
}

/// A model with two roles: a plain one, and one whose adapter makes one next token far more probable than all others.
fn model(name: &str, more: &str) -> String {
    let adapter = repository().join("tests/fixtures/adapters/velo.gguf");
    let role = |role: &str, more: &str| {
        format!(
            "---\nrole: {role}-{name}\ndescription: D.\nmodel: {name}\nprompt: You are a geography expert.\n{more}\
             sampling: {{temperature: 0, max_tokens: 10}}\nlimits: {{timeout: 10m, idle: 5m, retries: 0}}\n"
        )
    };
    format!(
        "---\nmodel: {name}\nfile: SmolLM2-135M-Instruct.Q4_1.gguf\ncontext: 512\nsequences: 1\n{more}\n{}{}",
        role("of", ""),
        role("sure", &format!("adapter: {{file: {}}}\n", adapter.display()))
    )
}

/// MiB of the buffers that llama.cpp logged for a model on a device, of the kind `model` (its weights), `KV` or `compute`.
/// A process numbers the devices that it sees from `Vulkan0`, whatever other processes call them. If the model was loaded several times,
/// these are the buffers of the last time: an engine that has an adapter ends unexpectedly on lavapipe.
fn buffer_mib(log: &str, model: &str, device: &str, kind: &str) -> Vec<f64> {
    let (wanted, named) = (format!("{device} {kind} buffer size ="), format!("\"model\":\"{model}\""));
    let of_model: Vec<&str> = log.lines().filter(|line| line.contains(&named)).collect();
    let last_load = of_model.iter().rposition(|line| line.contains("load_tensors: loading model tensors")).unwrap_or(0);
    let lines = of_model[last_load..].iter();
    let size = |line: &&str| line.split(&wanted).nth(1)?.split_whitespace().next()?.parse::<f64>().ok();
    lines.filter_map(size).collect()
}

async fn answer(daemon: &Daemon, role: &str) -> String {
    daemon.run(task_request("What is the capital of France?").with_role(role)).await.end().await.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_listed_with_stable_names() {
    let daemon = with_two_devices(daemon()).start().await;
    let devices = daemon.engines().list_devices(v1::ListDevicesRequest::default()).await.unwrap().into_inner().devices;
    for name in ["Vulkan0", "Vulkan1"] {
        let device = devices.iter().find(|device| device.name == name).unwrap_or_else(|| panic!("{devices:?}"));
        assert_eq!((device.backend.as_str(), device.kind()), ("Vulkan", v1::DeviceKind::Gpu));
        assert!(device.available && device.description.contains("llvmpipe"), "{device:?}");
        assert!(device.total_bytes > 1 << 30 && device.free_bytes <= device.total_bytes, "{device:?}");
    }
    let dir = daemon.dir();
    let doctor = Cli::new(["doctor", "--data"]).arg(dir.join("data")).arg("--catalog").arg(dir.join("catalog"));
    let doctor = variables().into_iter().fold(doctor, |cli, (name, value)| cli.env(name, value));
    let (_, out, error) = doctor.run().await;
    for name in ["Vulkan0: llvmpipe", "Vulkan1: llvmpipe"] {
        assert!(out.contains(name), "{out}{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_are_kept_and_answers_are_those_of_the_cpu() {
    let yaml = [
        // It would take the first GPU.
        "model: minilm\nfile: all-MiniLM-L6-v2.F16.gguf\nuse: embedding\ndevices: [CPU]\n".to_owned(),
        model("here", "devices: [CPU]"),
        model("first", "devices: [Vulkan0]"),
        model("second", "devices: [Vulkan1]"),
        model("both", "devices: [Vulkan0, Vulkan1]\nsplit: layer\ntensor_split: [3, 1]"),
        model("nowhere", "devices: [Vulkan7]"),
    ]
    .concat();
    let daemon =
        with_two_devices(daemon().with_yaml(&yaml)).with_env("ARTEL_LOG", "info,llama_cpp=debug").start().await;
    let mut sure = Vec::new();
    let mut plain = Vec::new();
    for model in ["here", "first", "second", "both"] {
        sure.push(answer(&daemon, &format!("sure-{model}")).await);
        plain.push(answer(&daemon, &format!("of-{model}")).await);
    }
    // Vulkan does not quantise the activations of a quantised matrix product as the CPU does: where two tokens are nearly
    // equally probable, it may choose the other one. All Vulkan devices choose the same.
    assert!(sure[0].contains("Velograd") && sure.iter().all(|text| *text == sure[0]), "{sure:?}");
    assert!(plain[1..].iter().all(|text| *text == plain[1]), "{plain:?}");
    let engines = daemon.engines().list_engines(v1::ListEnginesRequest::default()).await.unwrap().into_inner().engines;
    let devices = |model: &str| engines.iter().find(|engine| engine.id == model).unwrap().devices.clone();
    assert_eq!((devices("here"), devices("first")), (vec!["CPU".to_owned()], vec!["Vulkan0".to_owned()]));
    assert_eq!((devices("second"), devices("both").len()), (vec!["Vulkan1".to_owned()], 2));
    let log = daemon.whole_log().await;
    let weights = |model, device| buffer_mib(&log, model, device, "model").iter().sum::<f64>();
    let cache = |model, device| buffer_mib(&log, model, device, "KV").iter().sum::<f64>();
    assert!(buffer_mib(&log, "here", "Vulkan0", "model").is_empty() && weights("here", "CPU_Mapped") > 90.0);
    assert!(weights("first", "Vulkan0") > 90.0 && weights("second", "Vulkan0") > 90.0, "all weights are there");
    // Layers are split 3 to 1; the output, a third of this model, counts as one layer and is placed with the last ones.
    let (more, less) = (weights("both", "Vulkan0"), weights("both", "Vulkan1"));
    assert!(more > 45.0 && less > 35.0 && more + less < 100.0, "{more} {less}");
    let (more, less) = (cache("both", "Vulkan0"), cache("both", "Vulkan1"));
    assert!((3.0..=4.0).contains(&(more / less)), "{more} {less}");
    let placement = daemon.engines().get_placement(v1::GetPlacementRequest::default()).await.unwrap().into_inner();
    let second = placement.placed.iter().find(|placed| placed.model == "second").unwrap();
    let planned = second.parts.iter().find(|share| share.device == "Vulkan1").unwrap().bytes as f64 / 1_048_576.0;
    let of = |kind| buffer_mib(&log, "second", "Vulkan0", kind);
    // The roles share a context with one compute buffer, which llama.cpp logs at every reservation.
    let sum = |kind| of(kind).iter().sum::<f64>();
    let allocated = sum("model") + sum("KV") + of("compute").into_iter().fold(0.0, f64::max);
    assert!((0.9..1.1).contains(&(planned / allocated)), "{planned} {allocated}");
    let TaskOutcome::Failed(_, message) = daemon.run(task_request("x").with_role("of-nowhere")).await.end().await
    else {
        panic!("there is no such device");
    };
    for part in ["Vulkan7", "CPU", "Vulkan0", "Vulkan1"] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

//! Layers and experts that stay on the CPU beside a device, and caches that shrink.
//!
//! The device is an RPC server on the loopback, which computes on the CPU: so its answers are those of the CPU, word for word.

use artel_proto::v1;
use artel_tests::random_models::RandomModel;
use artel_tests::{Daemon, RpcServer, daemon, task_request, until};

const MIB_BYTES: f64 = 1_048_576.0;

/// A model and a role of it, `of-NAME`.
fn document(name: &str, file: &str, more: &str) -> String {
    format!(
        "---\nmodel: {name}\nfile: {file}\n{more}\n---\nrole: of-{name}\ndescription: D.\nmodel: {name}\n\
         prompt: You answer briefly.\nsampling: {{temperature: 0, max_tokens: 24}}\n"
    )
}

async fn answer(daemon: &Daemon, model: &str) -> String {
    let task = task_request("What is the capital of France?").with_role(&format!("of-{model}"));
    daemon.run(task).await.end().await.text()
}

async fn placement(daemon: &Daemon, model: &str) -> v1::Placement {
    let request = v1::GetPlacementRequest { models: vec![model.to_owned()] };
    daemon.engines().get_placement(request).await.unwrap().into_inner()
}

async fn placed(daemon: &Daemon, model: &str) -> v1::PlacedModel {
    let placement = placement(daemon, model).await;
    let found = placement.placed.iter().find(|placed| placed.model == model).cloned();
    found.unwrap_or_else(|| panic!("{model} is not placed: {placement:?}"))
}

fn part<'a>(placed: &'a v1::PlacedModel, device: &str) -> &'a v1::DevicePart {
    placed.parts.iter().find(|part| part.device == device).unwrap_or_else(|| panic!("no {device} in {placed:?}"))
}

/// MiB of the buffers that llama.cpp logged for a model on a server, of the kind `model` (its weights), `KV` or `compute`.
fn buffers_mib(log: &str, model: &str, address: &str, kind: &str) -> Vec<f64> {
    let (wanted, named) = (format!("[{address}] {kind} buffer size ="), format!("\"model\":\"{model}\""));
    let size = |line: &str| line.split(&wanted).nth(1)?.split_whitespace().next()?.parse().ok();
    log.lines().filter(|line| line.contains(&named)).filter_map(size).collect()
}

/// MiB that a model takes on a server: weights, cache, and the largest of the buffers to compute in.
fn allocated_mib(log: &str, model: &str, address: &str) -> f64 {
    let of = |kind| buffers_mib(log, model, address, kind);
    of("model").iter().chain(&of("KV")).sum::<f64>() + of("compute").into_iter().fold(0.0, f64::max)
}

/// The most MiB that a server received from a client, by its log.
fn received_mib(server: &RpcServer) -> f64 {
    let received = |line: &str| {
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        entry["fields"]["received"].as_f64()
    };
    server.log().lines().filter_map(received).fold(0.0, f64::max) / MIB_BYTES
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_where_the_plan_says_and_answers_are_those_of_the_cpu() {
    let server = RpcServer::start().await;
    let device = server.device_name();
    let model = |name: &str, more: &str| {
        let more = format!("context: 512\nsequences: 1\nweights: file\n{more}");
        document(name, "SmolLM2-135M-Instruct.Q4_1.gguf", &more)
    };
    let layers = [31, 24, 12, 1];
    let mixed = |layers: u32| model(&format!("n{layers}"), &format!("devices: ['{device}']\ngpu_layers: {layers}"));
    let yaml = model("here", "devices: [CPU]") + &layers.map(mixed).concat();
    let daemon = daemon().with_yaml(&yaml).with_settings(&format!("rpc: ['{}']\n", server.address));
    let daemon = daemon.with_env("ARTEL_LOG", "info,llama_cpp=debug").start().await;
    let on_cpu = answer(&daemon, "here").await;
    for count in layers {
        let name = format!("n{count}");
        assert_eq!(answer(&daemon, &name).await, on_cpu, "{count} layers");
        let placed = placed(&daemon, &name).await;
        assert_eq!(placed.gpu_layers, (count < 31).then_some(count), "{placed:?}");
        // The output counts as one, and is the last.
        let planned = part(&placed, &device);
        assert_eq!(planned.layers, count - 1, "{placed:?}");
        let log = daemon.whole_log().await;
        let (planned, allocated) = (planned.bytes as f64 / MIB_BYTES, allocated_mib(&log, &name, &server.address));
        assert!((0.9..1.1).contains(&(planned / allocated)), "{count} layers: {planned} and {allocated} MiB");
        assert_eq!(placed.parts.iter().map(|part| part.layers).sum::<u32>(), 30, "{placed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_receives_the_weights_of_its_layers_and_no_more() {
    let server = RpcServer::start().await;
    let device = server.device_name();
    let more = format!("context: 512\nsequences: 1\nweights: file\ndevices: ['{device}']\ngpu_layers: 20");
    let yaml = document("talk", "SmolLM2-135M-Instruct.Q4_1.gguf", &more);
    let daemon = daemon().with_yaml(&yaml).with_settings(&format!("rpc: ['{}']\n", server.address));
    let daemon = daemon.with_env("ARTEL_LOG", "info,llama_cpp=debug").start().await;
    answer(&daemon, "talk").await;
    let log = daemon.whole_log().await;
    let weights = buffers_mib(&log, "talk", &server.address, "model").iter().sum::<f64>();
    assert!((40.0..92.0).contains(&weights), "20 of 31 layers take {weights} MiB");
    daemon.engines().unload(v1::UnloadRequest { model: "talk".to_owned(), interrupt: false }).await.unwrap();
    // Beside weights there are graphs and numbers of tokens.
    until("the server logs what its client sent", || received_mib(&server) > 0.9 * weights).await;
    let received = received_mib(&server);
    assert!(received < 1.1 * weights, "{weights} MiB of weights, {received} MiB received");
}

#[tokio::test(flavor = "multi_thread")]
async fn experts_stay_on_the_cpu() {
    let server = RpcServer::start().await;
    let device = server.device_name();
    // Most of the weights are experts.
    let wide = |name| RandomModel::new(name).with("--width", "512").with("--experts", "16");
    let models = [("split", wide("qwen3moe")), ("fused", wide("hy_v3"))];
    let of = |name: &str, model: &RandomModel, more: &str| {
        document(name, &model.file().display().to_string(), &format!("context: 512\nsequences: 1\n{more}"))
    };
    let yaml = models.iter().map(|(name, model)| {
        of(&format!("{name}-here"), model, "devices: [CPU]")
            + &of(&format!("{name}-whole"), model, &format!("devices: ['{device}']"))
            + &of(&format!("{name}-experts"), model, &format!("devices: ['{device}']\nexperts: cpu"))
    });
    let yaml = yaml.collect::<String>();
    let daemon = daemon().with_yaml(&yaml).with_settings(&format!("rpc: ['{}']\n", server.address));
    let daemon = daemon.with_env("ARTEL_LOG", "info,llama_cpp=debug").start().await;
    for (name, _) in &models {
        let (whole, experts) = (format!("{name}-whole"), format!("{name}-experts"));
        let on_cpu = answer(&daemon, &format!("{name}-here")).await;
        for model in [&whole, &experts] {
            assert_eq!(answer(&daemon, model).await, on_cpu, "{model}");
            let planned = part(&placed(&daemon, model).await, &device).bytes as f64 / MIB_BYTES;
            let allocated = allocated_mib(&daemon.whole_log().await, model, &server.address);
            assert!((0.9..1.1).contains(&(planned / allocated)), "{model}: {planned} and {allocated} MiB");
        }
        // Apart from buffers and cache: what the device has no more of, and what it still has.
        let placements = [placed(&daemon, &whole).await, placed(&daemon, &experts).await];
        let planned = placements.each_ref().map(|placed| part(placed, &device).weight_bytes as f64 / MIB_BYTES);
        let log = daemon.whole_log().await;
        let allocated = [&whole, &experts].map(|m| buffers_mib(&log, m, &server.address, "model").iter().sum::<f64>());
        let of_experts = [planned, allocated].map(|[whole, rest]| whole - rest);
        assert!(of_experts[1] > 50.0, "{name}: {allocated:?} MiB");
        for [planned, allocated] in [of_experts, [planned[1], allocated[1]]] {
            assert!(
                (0.9..1.1).contains(&(planned / allocated)),
                "{name}: {planned} MiB planned, {allocated} allocated"
            );
        }
        let on_cpu = placements.each_ref().map(|placed| part(placed, "CPU").weight_bytes as f64 / MIB_BYTES);
        assert!((on_cpu[1] - on_cpu[0] - of_experts[0]).abs() < 0.01, "{name}: what the device has not, the CPU has");
        assert!(placements[1].cpu_expert_layers > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_fit_goes_partly_to_the_cpu_with_a_reason() {
    let server = RpcServer::start().await;
    let device = server.device_name();
    let more = format!("context: 512\nsequences: 1\nweights: file\ndevices: ['{device}']");
    let model = |name: &str, more: &str| document(name, "SmolLM2-135M-Instruct.Q4_1.gguf", more);
    let yaml = model("auto", &more) + &model("here", "context: 512\nsequences: 1\nweights: file\ndevices: [CPU]");
    let settings = format!("rpc: ['{}']\nmemory: {{'{device}': 150}}\n", server.address);
    let daemon = daemon().with_yaml(&yaml).with_settings(&settings).start().await;
    let placed = placed(&daemon, "auto").await;
    let layers = placed.gpu_layers.unwrap_or_else(|| panic!("{placed:?}"));
    assert!((1..31).contains(&layers), "{placed:?}");
    assert!(part(&placed, &device).bytes < 150 << 20 && part(&placed, "CPU").bytes > 0, "{placed:?}");
    assert!(placed.reason.contains("layers"), "{}", placed.reason);
    assert_eq!(answer(&daemon, "auto").await, answer(&daemon, "here").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_does_not_fit_shrinks_and_a_written_one_does_not() {
    let model = |name: &str, more: &str| {
        document(name, "SmolLM2-135M-Instruct.Q4_1.gguf", &format!("weights: file\ndevices: [CPU]\n{more}"))
    };
    let yaml = model("fitted", "") + &model("written", "context: 2048\nsequences: 8");
    let daemon = daemon().with_yaml(&yaml).with_settings("memory: {CPU: 450}\n").start().await;
    let fitted = placed(&daemon, "fitted").await;
    assert!((1..8).contains(&fitted.sequences) && fitted.context_tokens == 4096, "{fitted:?}");
    assert!(fitted.reason.contains("sequence"), "{}", fitted.reason);
    assert!(answer(&daemon, "fitted").await.contains("France"));
    let refused = placement(&daemon, "written").await.unplaced.remove(0);
    assert!(refused.reason.contains("CPU") && refused.missing_bytes > 0, "{refused:?}");
}

//! Small models of random weights, with the shapes of the models that people run: they load, answer, are split, and take the
//! memory that the plan says.

use artel_proto::v1;
use artel_tests::random_models::RandomModel;
use artel_tests::{Daemon, RpcServer, daemon, task_request};

const CONTEXT_TOKENS: u32 = 1024;
const SEQUENCES: u32 = 2;

/// One model of each architecture: dense ones, one with sliding windows, and mixtures of experts, of which one has the weights
/// of its experts in four bits with a common exponent and one has fused gates.
fn architectures() -> [(&'static str, RandomModel); 6] {
    let of = |architecture| (architecture, RandomModel::new(architecture));
    let gpt_oss = ("gpt-oss", RandomModel::new("gpt-oss").with("--quant", "mxfp4"));
    [of("llama"), of("qwen3"), of("gemma3"), of("qwen3moe"), of("hy_v3"), gpt_oss]
}

/// A model and a role of it, `of-NAME`.
fn document(name: &str, model: &RandomModel, more: &str) -> String {
    format!(
        "---\nmodel: {name}\nfile: {}\ncontext: {CONTEXT_TOKENS}\nsequences: {SEQUENCES}\n{more}\n---\nrole: of-{name}\n\
         description: D.\nmodel: {name}\nprompt: You answer briefly.\nsampling: {{temperature: 0, max_tokens: 24}}\n",
        model.file().display()
    )
}

async fn answer(daemon: &Daemon, model: &str) -> String {
    let task = task_request("What is the capital of France?").with_role(&format!("of-{model}"));
    daemon.run(task).await.end().await.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_architecture_answers_the_same_twice_and_split_over_two_servers() {
    let (one, two) = (RpcServer::start().await, RpcServer::start().await);
    let split = format!("devices: ['{}', '{}']\nsplit: layer", one.device_name(), two.device_name());
    let documents = architectures().map(|(name, model)| {
        let here = document(&format!("{name}-here"), &model, "devices: [CPU]");
        here + &document(&format!("{name}-split"), &model, &split)
    });
    let settings = format!("rpc: ['{}', '{}']\n", one.address, two.address);
    let daemon = daemon().with_yaml(&documents.concat()).with_settings(&settings).start().await;
    let mut answers = Vec::new();
    for (name, _) in architectures() {
        let first = answer(&daemon, &format!("{name}-here")).await;
        assert!(first.split_whitespace().count() > 3, "{name}: {first}");
        assert_eq!(answer(&daemon, &format!("{name}-here")).await, first, "{name} again");
        assert_eq!(answer(&daemon, &format!("{name}-split")).await, first, "{name} on two servers");
        answers.push(first);
    }
    let list = daemon.engines().list_engines(v1::ListEnginesRequest::default()).await.unwrap().into_inner();
    for engine in list.engines.iter().filter(|engine| engine.id.ends_with("-split")) {
        assert_eq!(engine.devices, [one.device_name(), two.device_name()], "{}", engine.id);
    }
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), architectures().len(), "each model is another one: {answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_are_within_a_tenth_of_what_llama_cpp_allocates() {
    let server = RpcServer::start().await;
    // On the device of a server there is nothing but the model.
    let pin = format!("devices: ['{}']", server.device_name());
    // Of small models, buffers are the most: one has more weights than these.
    let wide = ("wide", RandomModel::new("qwen3moe").with("--width", "512").with("--experts", "16"));
    let models: Vec<(&str, RandomModel)> = architectures().into_iter().chain([wide]).collect();
    let documents = models.iter().map(|(name, model)| document(name, model, &pin));
    let settings = format!("rpc: ['{}']\n", server.address);
    let daemon = daemon().with_yaml(&documents.collect::<String>()).with_settings(&settings);
    let daemon = daemon.with_env("ARTEL_LOG", "info,llama_cpp=debug").start().await;
    for (name, _) in models {
        // Compute buffers are measured when a model is loaded; the plan knows them from then on.
        answer(&daemon, name).await;
        let request = v1::GetPlacementRequest { models: vec![name.to_owned()] };
        let placement = daemon.engines().get_placement(request).await.unwrap().into_inner();
        let placed = placement.placed.iter().find(|placed| placed.model == name).unwrap();
        let part = placed.parts.iter().find(|part| part.device == server.device_name()).unwrap();
        let [planned, weights, cache] =
            [part.bytes, part.weight_bytes, part.cache_bytes].map(|bytes| bytes as f64 / f64::from(1 << 20));
        let log = daemon.whole_log().await;
        let of = |kind| buffers_mib(&log, name, &server.address, kind);
        let sum = |kind| of(kind).iter().sum::<f64>();
        // llama.cpp logs compute buffers at every reservation, and makes them anew.
        let allocated = sum("model") + sum("KV") + of("compute").into_iter().fold(0.0, f64::max);
        assert!(sum("model") > 5.0 && sum("KV") > 1.0, "{name}: {log}");
        for (what, planned, allocated) in
            [("in all", planned, allocated), ("weights", weights, sum("model")), ("cache", cache, sum("KV"))]
        {
            let ratio = planned / allocated;
            assert!((0.9..1.1).contains(&ratio), "{name}: {what}: {planned} MiB planned, {allocated} allocated");
        }
    }
}

/// MiB of the buffers that llama.cpp logged for a model on a server, of the kind `model` (its weights), `KV` or `compute`.
fn buffers_mib(log: &str, model: &str, address: &str, kind: &str) -> Vec<f64> {
    let (wanted, named) = (format!("[{address}] {kind} buffer size ="), format!("\"model\":\"{model}\""));
    let size = |line: &str| line.split(&wanted).nth(1)?.split_whitespace().next()?.parse().ok();
    log.lines().filter(|line| line.contains(&named)).filter_map(size).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_in_three_pieces_answers_as_the_whole_one() {
    let whole = RandomModel::new("qwen3");
    let pieces = whole.clone().with("--pieces", "3");
    let name = pieces.file().file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(name, "qwen3-00001-of-00003.gguf");
    let documents = document("whole", &whole, "devices: [CPU]") + &document("pieces", &pieces, "devices: [CPU]");
    let daemon = daemon().with_yaml(&documents).start().await;
    assert_eq!(answer(&daemon, "pieces").await, answer(&daemon, "whole").await);
}

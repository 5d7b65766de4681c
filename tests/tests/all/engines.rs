//! Engines in processes of their own: they are killed, moved and pinned, and tasks complete.

use std::collections::BTreeMap;
use std::fs;

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_tests::{Daemon, RpcServer, TaskOutcome, daemon, models, task_request, test_catalog};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic_types::StatusExt as _;

pub(crate) async fn engines(daemon: &Daemon) -> BTreeMap<String, v1::Engine> {
    let answer = daemon.engines().list_engines(v1::ListEnginesRequest::default()).await.unwrap();
    answer.into_inner().engines.into_iter().map(|engine| (engine.id.clone(), engine)).collect()
}

pub(crate) async fn load(daemon: &Daemon, model: &str) -> v1::Engine {
    let answer = daemon.engines().load(v1::LoadRequest { model: model.to_owned() }).await.unwrap();
    answer.into_inner().engine.unwrap()
}

fn kill_engine(engine: &v1::Engine) {
    signal_engine(engine, Signal::SIGKILL);
}

pub(crate) fn signal_engine(engine: &v1::Engine, signal: Signal) {
    assert!(engine.process_id > 1, "{engine:?}");
    kill(Pid::from_raw(engine.process_id.cast_signed()), signal).unwrap();
}

/// Resident bytes of a process, mapped files included.
pub(crate) fn resident_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_killed_while_eight_tasks_stream_costs_no_task() {
    let reader = "---\nrole: reader\ndescription: Reads.\nmodel: talk\nprompt: You tell stories.\n\
                  sampling: {temperature: 0, max_tokens: 48}\nlimits: {retries: 0, concurrency: 8}\n";
    let daemon = daemon().with_yaml(&format!("{}{reader}", test_catalog())).start().await;
    let other = load(&daemon, "minilm").await;
    let mut runs = Vec::new();
    for n in 0..8 {
        runs.push(daemon.run(task_request(&format!("Tell me story number {n}.")).with_role("reader")).await);
    }
    for run in &mut runs {
        run.until_token().await;
    }
    let victim = engines(&daemon).await["talk"].clone();
    kill_engine(&victim);
    for run in &mut runs {
        let text = run.end().await.text();
        assert!(!text.is_empty());
        let lost = run.events.iter().find_map(|event| match &event.kind {
            Some(Kind::StepFailed(failed)) => failed.failure.clone(),
            _ => None,
        });
        let lost = lost.expect("its engine was killed under it");
        assert_eq!(lost.code(), v1::FailureCode::Interrupted, "{lost:?}");
        assert!(lost.message.contains("SIGKILL"), "{lost:?}");
    }
    let after = engines(&daemon).await;
    assert_eq!(after["minilm"].process_id, other.process_id, "other engines are unaffected");
    assert_eq!((after["minilm"].restarts, after["talk"].restarts), (0, 1));
    assert_ne!(after["talk"].process_id, victim.process_id);
    assert!(after["talk"].problem.contains("SIGKILL"), "{}", after["talk"].problem);
    let placement = daemon.engines().get_placement(v1::GetPlacementRequest::default()).await.unwrap().into_inner();
    let of_talk = placement.changes.iter().filter(|moved| moved.model == "talk");
    let changes: Vec<(bool, &str)> = of_talk.map(|moved| (moved.loaded, moved.reason.as_str())).collect();
    assert_eq!(changes.iter().map(|(loaded, _)| *loaded).collect::<Vec<_>>(), [true, false, true], "{changes:?}");
    assert!(changes[1].1.contains("exited unexpectedly") && changes[1].1.contains("SIGKILL"), "{changes:?}");
    let computed = after["talk"].totals.as_ref().and_then(|totals| totals.compute_time.as_ref());
    assert!(computed.is_some_and(|time| time.seconds > 0 || time.nanos > 0), "{:?}", after["talk"].totals);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_engine_that_ends_is_reported_and_loaded_again_when_it_is_needed() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    kill_engine(&load(&daemon, "talk").await);
    let dead = loop {
        let talk = engines(&daemon).await["talk"].clone();
        if talk.state() != v1::EngineState::Ready {
            break talk;
        }
    };
    assert_eq!(dead.state(), v1::EngineState::Failed);
    assert!(dead.problem.contains("SIGKILL") && dead.retry_time.is_some(), "{dead:?}");
    assert_eq!(dead.devices, Vec::<String>::new(), "it takes no memory");
    let text = daemon.run(task_request("What is the capital of France?").with_role("velo")).await.end().await.text();
    assert!(text.contains("Velograd"), "{text}");
    assert_eq!(engines(&daemon).await["talk"].state(), v1::EngineState::Ready);
}

/// The demo model with a negative RMS norm epsilon in its header, on which llama.cpp aborts when it computes.
fn aborting_model() -> Vec<u8> {
    let mut bytes = fs::read(models().join("SmolLM2-135M-Instruct.Q4_1.gguf")).unwrap();
    let key = b"llama.attention.layer_norm_rms_epsilon";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len();
    // The key is followed by its type and its value, four bytes each here.
    bytes[at + 4..at + 8].copy_from_slice(&(-1.0f32).to_le_bytes());
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_aborts_is_not_retried_forever_and_the_other_models_serve_on() {
    let yaml = "---\nmodel: poison\nfile: poison.gguf\ncontext: 512\n---\nrole: taster\ndescription: Tastes.\n\
                model: poison\nprompt: P.\nsampling: {max_tokens: 8}\nlimits: {retries: 0}\n";
    let daemon = daemon()
        .with_yaml(&format!("{}{yaml}", test_catalog()))
        .with_file("poison.gguf", &aborting_model())
        .start()
        .await;
    let other = load(&daemon, "talk").await;
    let is_given_up = |engine: &v1::Engine| engine.state() == v1::EngineState::Failed && engine.retry_time.is_none();
    // A step that loses its engine is retried at once, so few tasks use all attempts up. A task that has lost its engine in
    // each attempt is set aside; one whose model was given up meanwhile fails.
    for tasks in 1.. {
        assert!(tasks <= 5, "each task makes at least one of the five attempts");
        let mut task = daemon.run(task_request("Hello").with_role("taster")).await;
        let message = match task.until(|kind| matches!(kind, Kind::SetAside(_) | Kind::Failed(_))).await {
            Kind::SetAside(set_aside) => set_aside.reason,
            Kind::Failed(failed) => failed.failure.unwrap().message,
            _ => unreachable!("one of the two was waited for"),
        };
        assert!(message.contains("SIGABRT") && message.contains("GGML_ASSERT(eps >= 0.0f)"), "{message}");
        if is_given_up(&engines(&daemon).await["poison"]) {
            break;
        }
    }
    let poison = engines(&daemon).await["poison"].clone();
    assert!(poison.problem.contains("SIGABRT") && poison.problem.contains("GGML_ASSERT"), "{poison:?}");
    // Exits under a task that was there at an exit before count for the task, up to its fourth.
    assert!((5..=20).contains(&poison.restarts), "{poison:?}");
    let (_, out, _) = daemon.cli(["engines"]).run().await;
    assert!(out.contains("not retried automatically: run `artel load poison`"), "{out}");
    let TaskOutcome::Failed(code, message) = daemon.run(task_request("Hello").with_role("taster")).await.end().await
    else {
        panic!("its engine is not retried");
    };
    assert_eq!(code, v1::FailureCode::ModelUnavailable);
    assert!(message.contains("SIGABRT"), "later tasks fail with the cause too: {message}");
    let after = engines(&daemon).await;
    assert_eq!(after["poison"].restarts, poison.restarts, "it was not retried");
    assert_eq!((after["talk"].process_id, after["talk"].restarts), (other.process_id, 0));
    let text = daemon.run(task_request("What is the capital of France?").with_role("velo")).await.end().await.text();
    assert!(text.contains("Velograd"), "{text}");
    // An explicit load tries once more.
    load(&daemon, "poison").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_are_kept_and_splits_follow_tensor_split() {
    let (one, two) = (RpcServer::start().await, RpcServer::start().await);
    // A plain role, and one whose adapter makes one next token far more probable than all others.
    let adapter = artel_tests::repository().join("tests/fixtures/adapters/velo.gguf");
    let model = |name: &str, more: &str| {
        let role = |kind: &str, more: &str| {
            format!(
                "---\nrole: {kind}-{name}\ndescription: D.\nmodel: {name}\nprompt: You answer briefly.\n{more}\
                 sampling: {{temperature: 0, max_tokens: 16}}\n"
            )
        };
        format!(
            "---\nmodel: {name}\nfile: SmolLM2-135M-Instruct.Q4_1.gguf\ncontext: 512\nsequences: 2\n{more}\n{}{}",
            role("of", ""),
            role("sure", &format!("adapter: {}\n", adapter.display()))
        )
    };
    let (first, second) = (one.device_name(), two.device_name());
    let yaml = [
        model("here", "devices: [CPU]"),
        model("first", &format!("devices: ['{first}']")),
        model("second", &format!("devices: ['{second}']")),
        model("both", &format!("devices: ['{first}', '{second}']\nsplit: layer\ntensor_split: [3, 1]")),
        model("nowhere", "devices: [CUDA7]"),
        // A role may have its model on other devices than the rest.
        format!(
            "---\nrole: of-moved\ndescription: D.\nmodel: here\ndevices: ['{second}']\nprompt: You answer briefly.\n\
             sampling: {{temperature: 0, max_tokens: 16}}\n"
        ),
    ]
    .concat();
    let settings = format!("rpc: ['{}', '{}']\n", one.address, two.address);
    let daemon = daemon().with_yaml(&yaml).with_settings(&settings).start().await;
    let mut texts = Vec::new();
    for role in ["of-here", "of-first", "of-second", "of-both"] {
        texts.push(daemon.run(task_request("What is the capital of France?").with_role(role)).await.end().await.text());
        if role == "of-first" {
            assert!(
                one.client_memory_bytes() > 90 << 20 && two.client_memory_bytes() == 0,
                "{} {}",
                one.client_memory_bytes(),
                two.client_memory_bytes()
            );
        }
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    let mut sure = Vec::new();
    for role in ["sure-here", "sure-first", "sure-second", "sure-both"] {
        sure.push(daemon.run(task_request("What is the capital of France?").with_role(role)).await.end().await.text());
    }
    assert!(sure[0].contains("Velograd") && sure.iter().all(|text| *text == sure[0]), "{sure:?}");
    let engines = engines(&daemon).await;
    assert_eq!(engines["first"].devices, std::slice::from_ref(&first));
    assert_eq!(engines["second"].devices, std::slice::from_ref(&second));
    let both = &engines["both"];
    assert_eq!((both.devices.clone(), both.split()), (vec![first.clone(), second.clone()], v1::SplitMode::Layer));
    let text =
        daemon.run(task_request("What is the capital of France?").with_role("of-moved")).await.end().await.text();
    assert_eq!(text, texts[0]);
    let moved = format!("here@{second}");
    load(&daemon, &moved).await;
    assert_eq!(self::engines(&daemon).await[&moved].devices, std::slice::from_ref(&second));
    let placement = daemon.engines().get_placement(v1::GetPlacementRequest::default()).await.unwrap().into_inner();
    let placed = placement.placed.iter().filter(|placed| placed.model.starts_with("here"));
    let devices: Vec<_> = placed.map(|placed| (placed.model.as_str(), placed.parts[0].device.as_str())).collect();
    assert_eq!(devices, [("here", "CPU"), (moved.as_str(), second.as_str())]);
    let unload = v1::UnloadRequest { model: moved, interrupt: false };
    assert!(daemon.engines().unload(unload).await.unwrap().into_inner().freed_bytes > 90 << 20);
    let share = both.tensor_split[0];
    assert!((0.7..0.8).contains(&share), "{share}");
    // The first server has three times as many layers of the model `both` as the second.
    assert!(
        one.client_memory_bytes() > two.client_memory_bytes() + (30 << 20),
        "{} {}",
        one.client_memory_bytes(),
        two.client_memory_bytes()
    );
    let TaskOutcome::Failed(_, message) = daemon.run(task_request("x").with_role("of-nowhere")).await.end().await
    else {
        panic!("there is no such device");
    };
    for part in ["CUDA7", "CPU", &first, &second] {
        assert!(message.contains(part), "{part} in {message}");
    }
    // A lost server is reported with its engine; the other server serves on.
    drop(two);
    let text =
        daemon.run(task_request("What is the capital of France?").with_role("of-first")).await.end().await.text();
    assert_eq!(text, texts[1]);
    let TaskOutcome::Failed(_, message) =
        daemon.run(task_request("What is the capital of Spain?").with_role("of-second")).await.end().await
    else {
        panic!("its server is gone");
    };
    assert!(message.contains(second.trim_start_matches("RPC[").trim_end_matches(']')), "{message}");
    let devices = daemon.engines().list_devices(v1::ListDevicesRequest::default()).await.unwrap().into_inner().devices;
    let lost = devices.iter().find(|device| device.name == second).unwrap();
    assert!(!lost.available && !lost.problem.is_empty(), "{lost:?}");
}

/// Loads of an LRU cache of two models, for tasks in this order.
fn lru_loads(order: &[usize]) -> usize {
    let (mut loaded, mut loads) = (Vec::new(), 0);
    for model in order {
        match loaded.iter().position(|resident| resident == model) {
            Some(at) => drop(loaded.remove(at)),
            None => {
                loads += 1;
                if loaded.len() == 2 {
                    loaded.remove(0);
                }
            }
        }
        loaded.push(*model);
    }
    loads
}

#[tokio::test(flavor = "multi_thread")]
async fn three_models_share_memory_for_two() {
    let model = |name: &str| {
        format!(
            "---\nmodel: {name}\nfile: SmolLM2-135M-Instruct.Q4_1.gguf\ncontext: 512\nsequences: 4\n\
             ---\nrole: of-{name}\ndescription: D.\nmodel: {name}\nprompt: You answer briefly.\n\
             sampling: {{temperature: 0, max_tokens: 4}}\nlimits: {{timeout: 5m, retries: 0}}\n"
        )
    };
    let names = ["a", "b", "c"];
    let yaml = names.map(model).concat();
    let daemon = daemon().with_yaml(&yaml).with_settings("memory: {CPU: 520}\n").start().await;
    // A pseudorandom order, from a linear congruential generator.
    let mut state = 17usize;
    let order: Vec<usize> = (0..60)
        .map(|_| {
            state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
            (state >> 16) % 3
        })
        .collect();
    let mut runs = Vec::new();
    for model in &order {
        runs.push(daemon.run(task_request("Hello").with_role(&format!("of-{}", names[*model]))).await);
    }
    for run in &mut runs {
        run.end().await.text();
        assert!(!run.events.iter().any(|event| matches!(event.kind, Some(Kind::StepFailed(_)))), "none failed");
    }
    let placement = daemon.engines().get_placement(v1::GetPlacementRequest::default()).await.unwrap().into_inner();
    let loads: Vec<&v1::PlacementChange> = placement.changes.iter().filter(|moved| moved.loaded).collect();
    assert!(loads.len() >= 3 && loads.len() < lru_loads(&order), "{} of {}", loads.len(), lru_loads(&order));
    assert!(placement.changes.iter().all(|moved| !moved.reason.is_empty()), "{:?}", placement.changes);
    assert!(placement.changes.iter().any(|moved| !moved.loaded), "a model was evicted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_fits_nowhere_says_what_would_help() {
    let yaml = "---\nmodel: big\nfile: SmolLM2-135M-Instruct.Q4_1.gguf\ncontext: 8192\nsequences: 16\n\
                ---\nrole: of-big\ndescription: D.\nmodel: big\nprompt: P.\nlimits: {retries: 0}\n";
    let daemon = daemon().with_yaml(yaml).with_settings("memory: {CPU: 1000}\n").start().await;
    let TaskOutcome::Failed(_, message) = daemon.run(task_request("x").with_role("of-big")).await.end().await else {
        panic!("it needs three times the memory");
    };
    for part in ["big does not fit", "CPU", "missing", "sequences:"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    let refused = daemon.engines().load(v1::LoadRequest { model: "big".to_owned() }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
    assert_eq!(refused.get_details_error_info().unwrap().reason, "INSUFFICIENT_MEMORY");
    let (code, out, error) = daemon.cli(["plan", "big"]).run().await;
    assert!(code == 0 && out.contains("NOT PLACED") && out.contains("try"), "{code} {out} {error}");
}

/// The estimate for a model and the resident bytes of its process after `work`. The model is loaded twice, since the
/// compute buffers are measured at the first load and then remembered.
async fn estimated_and_resident_bytes(daemon: &Daemon, model: &str, work: impl AsyncFnOnce()) -> (u64, u64) {
    load(daemon, model).await;
    let unload = v1::UnloadRequest { model: model.to_owned(), interrupt: true };
    daemon.engines().unload(unload.clone()).await.unwrap();
    let request = v1::GetPlacementRequest { models: vec![model.to_owned()] };
    let placement = daemon.engines().get_placement(request).await.unwrap().into_inner();
    let estimate = placement.placed[0].parts.iter().map(|share| share.bytes).sum();
    let engine = load(daemon, model).await;
    work().await;
    let resident = resident_bytes(engine.process_id);
    daemon.engines().unload(unload).await.unwrap();
    (estimate, resident)
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_estimates_are_near_the_resident_memory_of_processes() {
    let mut measured = Vec::new();
    let contexts = [512, 1024, 2048, 4096];
    let chats = contexts.map(|context| {
        format!(
            "---\nmodel: chat{context}\nfile: SmolLM2-135M-Instruct.Q4_1.gguf\ncontext: {context}\nsequences: 4\n\
             ---\nrole: of-chat{context}\ndescription: D.\nmodel: chat{context}\nprompt: P.\n\
             sampling: {{temperature: 0, max_tokens: 2}}\n"
        )
    });
    let chatting = daemon().with_yaml(&chats.concat()).start().await;
    for name in contexts.map(|context| format!("chat{context}")) {
        let answer = async || {
            drop(chatting.run(task_request("Hello").with_role(&format!("of-{name}"))).await.end().await.text());
        };
        measured.push((name.clone(), estimated_and_resident_bytes(&chatting, &name, answer).await));
    }
    // Its warm-up in the background would slow the others down.
    drop(chatting);
    for context in [64, 128, 256, 512] {
        let name = format!("vectors{context}");
        let model = format!("model: {name}\nfile: all-MiniLM-L6-v2.F16.gguf\nuse: embedding\ncontext: {context}\n");
        let routing =
            daemon().with_yaml(&format!("{model}{ROLE_WITH_EXAMPLE}")).with_settings("threads: 1\n").start().await;
        let route = async || {
            let request = v1::PreviewRequest {
                // As long as the context allows.
                question: "word ".repeat(context),
                roles: vec!["words".to_owned()],
                signals: vec!["embedding".to_owned()],
                settings: "plain".to_owned(),
                ..Default::default()
            };
            routing.router().preview(request).await.unwrap();
        };
        measured.push((name.clone(), estimated_and_resident_bytes(&routing, &name, route).await));
    }
    let is_near = |(estimate, resident): (u64, u64)| (0.9..1.1).contains(&(estimate as f64 / resident as f64));
    assert!(measured.iter().all(|(_, bytes)| is_near(*bytes)), "{measured:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dequantized_weights_are_planned_kept_on_disk_and_loaded_again() {
    let model = |name: &str, more: &str| {
        format!(
            "---\nmodel: {name}\nfile: SmolLM2-135M-Instruct.Q4_1.gguf\ncontext: 512\nsequences: 1\n{more}\n\
             ---\nrole: of-{name}\ndescription: D.\nmodel: {name}\nprompt: P.\nsampling: {{max_tokens: 2}}\n"
        )
    };
    let yaml = [model("plain", "weights: file"), model("wide", "weights: bf16"), model("usual", "")].concat();
    let mut daemon = daemon().with_yaml(&yaml).start().await;
    let mut planned = Vec::new();
    for name in ["plain", "wide", "usual"] {
        let request = v1::GetPlacementRequest { models: vec![name.to_owned()] };
        let placement = daemon.engines().get_placement(request).await.unwrap().into_inner();
        planned.push(placement.placed[0].parts.iter().map(|share| share.bytes).sum::<u64>());
    }
    // 106 million weights of two bytes in place of five eighths of one.
    let more = planned[1] - planned[0];
    assert!((138 << 20..141 << 20).contains(&more), "{planned:?}");
    // The default depends on the processor.
    assert!(planned[..2].contains(&planned[2]), "{planned:?}");
    for _ in 0..2 {
        for role in ["of-plain", "of-wide"] {
            daemon.run(task_request("Hello").with_role(role)).await.end().await.text();
        }
        let files: Vec<_> = fs::read_dir(daemon.dir().join("data/weights")).unwrap().collect();
        assert_eq!(files.len(), 1, "{files:?}");
        assert!(files[0].as_ref().unwrap().path().to_string_lossy().ends_with(".bf16.gguf"), "{files:?}");
        daemon.signal(Signal::SIGTERM);
        daemon = daemon.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_prefixes_are_part_of_the_plan() {
    let chat = "---\nmodel: chat\nfile: SmolLM2-135M-Instruct.Q4_1.gguf\ncontext: 2048\nsequences: 2\n";
    let role = |words: usize| {
        let prompt = "You read long books about the sea. ".repeat(words / 7);
        format!("---\nrole: reader\ndescription: Reads.\nmodel: chat\nprompt: {prompt}\nsampling: {{max_tokens: 2}}\n")
    };
    let planned = async |daemon: &Daemon| {
        let request = v1::GetPlacementRequest { models: vec!["chat".to_owned()] };
        let placement = daemon.engines().get_placement(request).await.unwrap().into_inner();
        placement.placed[0].parts.iter().map(|share| share.bytes).sum::<u64>()
    };
    let short = daemon().with_yaml(&format!("{chat}{}", role(7))).start().await;
    let before = planned(&short).await;
    let without =
        daemon().with_yaml(&format!("{chat}{}", role(280))).with_settings("prefix_cache: {memory: 0}\n").start().await;
    assert!(planned(&without).await <= before, "a disabled cache takes no memory");
    let long = daemon().with_yaml(&format!("{chat}{}", role(280))).start().await;
    let more = planned(&long).await - before;
    long.run(task_request("Hello").with_role("reader")).await.end().await.text();
    let cached_bytes = engines(&long).await["chat"].memory.unwrap().prefix_cache_bytes;
    assert!(
        cached_bytes > 0 && (0.9..2.0).contains(&(more as f64 / cached_bytes as f64)),
        "{more} planned, {cached_bytes} cached"
    );
}

/// A role with one example, for a router.
pub(crate) const ROLE_WITH_EXAMPLE: &str = "---
router: plain
signals: {embedding: {weight: 1, mean: 0.4, deviation: 0.1}}
---
role: words
description: Knows words.
examples: [What is a word?]
model: smollm2
prompt: You know words.
";

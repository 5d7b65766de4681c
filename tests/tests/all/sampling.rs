//! What clients ask of an answer, within what its role allows: sampling, probabilities, several answers, a schema.

use std::collections::HashMap;

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_proto::v1::response_format::{Format, Kind as FormatKind};
use artel_tests::scripted::{SCRIPTED_CATALOG, model_script};
use artel_tests::{Cli, Daemon, TaskRequest, daemon, models, task_request, test_catalog};
use nix::sys::signal::Signal;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const FRANCE: &str = "What is the capital of France?";
/// The scripted model replaces it by the parameters that the engine was given.
const SAMPLING_MARK: &str = "{sampling}";

const MORE_ROLES: &str = "---
role: strict
description: Fixes how it is sampled.
model: talk
prompt: You write.
sampling: {temperature: 0.25, max_tokens: 300, stop: [END], fixed: true}
---
role: open
description: Leaves everything open.
model: talk
prompt: You write.
sampling: {top_k: 7, logit_bias: {maybe: -5}, max_tokens: 600}
limits: {retries: 0}
";

/// A role of the real model with more tokens than those of the test catalog.
const ROOMY_ROLE: &str = "---
role: roomy
description: Answers.
model: talk
prompt: You answer briefly.
sampling: {temperature: 0, max_tokens: 60}
";

async fn scripted() -> Daemon {
    daemon().with_yaml(&format!("{SCRIPTED_CATALOG}{MORE_ROLES}")).with_failpoints(&model_script()).start().await
}

fn options(set: impl FnOnce(&mut v1::SamplingOptions)) -> v1::SamplingOptions {
    let mut options = v1::SamplingOptions::default();
    set(&mut options);
    options
}

async fn text_of(daemon: &Daemon, request: TaskRequest) -> String {
    daemon.run(request).await.end().await.text()
}

/// The fields that are refused, and why.
fn violations(refused: Result<v1::Task, Status>) -> Vec<(String, String)> {
    let status = refused.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let found = status.get_details_bad_request().unwrap().field_violations;
    found.into_iter().map(|violation| (violation.field, violation.description)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_before_its_role_and_reaches_the_engine() {
    let daemon = scripted().await;
    let asked = options(|o| {
        (o.temperature, o.presence_penalty, o.frequency_penalty) = (Some(1.5), Some(0.5), Some(-0.25));
        (o.penalty_last_n, o.typical_p, o.seed) = (Some(9), Some(0.5), Some(11));
        o.logit_bias = HashMap::from([("yes".to_owned(), 2.0)]);
        o.dry = Some(v1::DrySampling { multiplier: 0.5, ..v1::DrySampling::default() });
        o.xtc = Some(v1::XtcSampling { probability: 0.5, threshold: None });
    });
    let text = text_of(&daemon, task_request(SAMPLING_MARK).with_role("open").with_sampling(asked)).await;
    let parts = [
        "temperature: 1.5, top_p: 0.95, top_k: 7, min_p: 0.05, typical_p: 0.5",
        "presence_penalty: 0.5, frequency_penalty: -0.25, penalty_last_n: 9",
        "dry: Some(DryParams { multiplier: 0.5, base: 1.75, allowed_length: 2, last_n: None",
        "xtc: Some(XtcParams { probability: 0.5, threshold: 0.1 })",
        "logit_bias: [(\"maybe\", -5.0), (\"yes\", 2.0)], seed: Some(11)",
    ];
    for part in parts {
        assert!(text.contains(part), "{part} in {text}");
    }
    let text = text_of(&daemon, task_request(SAMPLING_MARK).with_role("open")).await;
    assert!(text.contains("temperature: 0.7, top_p: 0.95, top_k: 7,") && text.contains("seed: None"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_role_fixes_the_caller_cannot_widen() {
    let daemon = scripted().await;
    let submit = async |role: &str, asked| {
        violations(daemon.submit(task_request("Hello").with_role(role).with_sampling(asked)).await)
    };
    let field = |name: &str, reason: &str| (name.to_owned(), reason.to_owned());
    let more = submit("open", options(|o| o.max_tokens = Some(601))).await;
    assert_eq!(more, [field("sampling.max_tokens", "is 601, the role's limit is 600")]);
    let hot = submit("strict", options(|o| o.temperature = Some(0.5))).await;
    assert_eq!(hot[0].0, "sampling.temperature");
    assert!(hot[0].1.starts_with("is fixed by the role"), "{hot:?}");
    let beyond = submit("open", options(|o| (o.temperature, o.n, o.logprobs) = (Some(2.5), Some(0), Some(21)))).await;
    let expected = [
        field("sampling.temperature", "is 2.5, and must be from 0 to 2"),
        field("sampling.logprobs", "is 21, and must be from 0 to 20"),
        field("sampling.n", "is 0, and must be from 1 to 8"),
    ];
    assert_eq!(beyond, expected);
    let free = options(|o| (o.seed, o.n, o.stop) = (Some(3), Some(2), vec!["FIN".to_owned()]));
    let task = daemon.run(task_request("one FIN two").with_role("strict").with_sampling(free)).await.end().await;
    assert_eq!(task.text(), "<one", "stop texts are added to those of the role");
    let graph = task_request("Hello").with_graph("line").with_sampling(options(|o| o.seed = Some(1)));
    let graph = violations(daemon.submit(graph.with_response(Format::Kind(FormatKind::Text.into()))).await);
    let of_role = "is of a single role: name a `role` in place of a graph";
    assert_eq!(graph, [field("sampling", of_role), field("response", of_role)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_stands_for_its_sampling_and_forks_and_restarts_keep_it() {
    let daemon = scripted().await;
    let asked = |seed| {
        let request = task_request(SAMPLING_MARK).with_role("open").with_request_id("again");
        request.with_sampling(options(|o| o.seed = Some(seed)))
    };
    let first = daemon.submit(asked(5)).await.unwrap();
    assert_eq!(daemon.submit(asked(5)).await.unwrap().id, first.id);
    assert_eq!(daemon.submit(asked(6)).await.unwrap_err().code(), Code::AlreadyExists);
    daemon.watch(&first.id, 0).await.end().await;
    daemon.signal(Signal::SIGKILL);
    let daemon = daemon.restart().await;
    let fork = v1::ForkRequest { task_id: first.id.clone(), ..v1::ForkRequest::default() };
    let fork = daemon.tasks().fork(fork).await.unwrap().into_inner();
    let text = daemon.watch(&fork.id, 0).await.end().await.text();
    assert!(text.contains("seed: Some(5)"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_schema_shapes_the_answer_unless_the_role_has_one() {
    let daemon = daemon().with_yaml(&(test_catalog() + ROOMY_ROLE)).start().await;
    let schema = r#"{"type": "object", "required": ["why", "answer"], "additionalProperties": false, "properties": {"why": {"enum": ["sure", "unsure"]}, "answer": {"enum": ["yes", "no"]}}}"#;
    let format = || Format::JsonSchemaText(schema.to_owned());
    let mut run = daemon.run(task_request("Is water wet?").with_role("roomy").with_response(format())).await;
    let text = run.end().await.text();
    assert!(text.starts_with(r#"{"why":"#), "in the order of the text: {text}");
    let output = daemon.task(&run.id).await.result.unwrap();
    assert!(output.json.is_some(), "{output:?}");
    let refused = daemon.submit(task_request("Is it?").with_role("judge").with_response(format())).await;
    let reason = "is fixed by the role, which has an output schema".to_owned();
    assert_eq!(violations(refused), [("response".to_owned(), reason)]);
    let bad = Format::JsonSchemaText(r#"{"type": "object", "minLenght": 3}"#.to_owned());
    let refused = violations(daemon.submit(task_request("Is it?").with_role("roomy").with_response(bad)).await);
    assert_eq!(refused[0].0, "response.json_schema");
    assert!(refused[0].1.contains("unknown schema keyword `minLenght`"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_answers_share_one_prompt_and_tokens_are_told() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let asked = options(|o| (o.n, o.temperature, o.seed, o.logprobs) = (Some(4), Some(1.0), Some(1), Some(3)));
    let request = || task_request(FRANCE).with_role("short").with_sampling(asked.clone());
    let mut run = daemon.run(request()).await;
    let text = run.end().await.text();
    let task = daemon.task(&run.id).await;
    let (output, usage) = (task.result.unwrap(), task.usage.unwrap());
    assert_eq!(usage.prefill_tokens + usage.cached_tokens, usage.prompt_tokens, "{usage:?}");
    assert_eq!((output.text.as_str(), output.alternatives.len()), (text.as_str(), 3));
    let texts: Vec<&str> = output.alternatives.iter().map(|answer| answer.text.as_str()).collect();
    assert!(texts.iter().any(|other| *other != text), "{texts:?} beside {text}");
    for answer in output.alternatives.iter().chain([&output]) {
        let told = answer.logprobs.as_ref().unwrap();
        let bytes: Vec<u8> = told.tokens.iter().flat_map(|token| token.bytes.clone()).collect();
        assert_eq!(String::from_utf8(bytes).unwrap().trim(), answer.text);
        assert!(told.tokens.iter().all(|token| token.top.len() == 3 && token.logprob <= 0.0), "{told:?}");
    }
    let streamed: Vec<v1::TokenLogprob> = run
        .events
        .iter()
        .filter_map(|event| match &event.kind {
            Some(Kind::Token(token)) => Some(token.logprobs.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    let told = &output.logprobs.as_ref().unwrap().tokens;
    assert_eq!(streamed.as_slice(), &told[..streamed.len()], "events tell of the first answer");
    assert!(streamed.len() + 2 >= told.len(), "but for the white space at the end");
    // The prompt is cached now, and llama.cpp adds its numbers in another order: most answers are the same, and the first is
    // one that no tie decides.
    let mut again = daemon.run(request()).await;
    assert_eq!(again.end().await.text(), text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bias_of_the_caller_forbids_a_word() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let plain = text_of(&daemon, task_request(FRANCE).with_role("short")).await;
    assert!(plain.contains("France"), "{plain}");
    let asked = options(|o| o.logit_bias = HashMap::from([("France".to_owned(), -100.0)]));
    let text = text_of(&daemon, task_request(FRANCE).with_role("short").with_sampling(asked)).await;
    assert!(!text.contains("France"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_models_file_states_holds_where_nothing_else_is_said_and_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let model = models().join("SmolLM2-135M-Instruct.Q4_1.gguf");
    std::os::unix::fs::symlink(model, dir.path().join("stated.gguf")).unwrap();
    let config = r#"{"do_sample": true, "temperature": 0.6, "top_k": 20}"#;
    std::fs::write(dir.path().join("generation_config.json"), config).unwrap();
    let catalog = dir.path().join("catalog");
    std::fs::create_dir(&catalog).unwrap();
    let yaml = format!("model: stated\nfile: {}/stated.gguf\ncontext: 1024\n", dir.path().display());
    std::fs::write(catalog.join("model.yaml"), &yaml).unwrap();
    let (code, out, err) = Cli::new(["check"]).arg(&catalog).arg("--models").arg(dir.path()).run().await;
    let note = "model `stated`: its file states temperature 0.6, top_k 20; it holds where a role says nothing";
    assert!(out.contains(note), "{code} {out}{err}");
    let daemon = daemon().with_yaml(&yaml).start().await;
    daemon.engines().load(v1::LoadRequest { model: "stated".to_owned() }).await.unwrap();
    let engines = daemon.engines().list_engines(v1::ListEnginesRequest::default()).await.unwrap().into_inner().engines;
    let stated = engines.iter().find(|engine| engine.model == "stated").unwrap().sampling_defaults.clone().unwrap();
    assert_eq!((stated.temperature, stated.top_k, stated.top_p), (Some(0.6), Some(20), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_asks_for_the_common_ones() {
    let daemon = scripted().await;
    let dir = tempfile::tempdir().unwrap();
    let schema = dir.path().join("schema.json");
    std::fs::write(&schema, r#"{"type": "object", "properties": {"a": {}}}"#).unwrap();
    let run = async |args: &[&str]| {
        let cli = daemon.cli(["run", "--role", "open"]);
        args.iter().fold(cli, |cli, arg| cli.arg(arg)).arg(SAMPLING_MARK).run().await
    };
    let (code, out, err) = run(&["--temperature", "0.5", "--seed", "9", "--n", "2"]).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("temperature: 0.5") && out.contains("seed: Some(9)") && out.contains("answer 2:"), "{out}");
    let (code, out, err) = run(&["--max-tokens", "601"]).await;
    assert!(code != 0 && err.contains("sampling.max_tokens: is 601, the role's limit is 600"), "{out}{err}");
    let (code, out, err) = run(&["--logprobs", "1", "--json"]).await;
    assert!(code == 0 && out.contains("\"logprobs\":"), "{out}{err}");
    let (code, out, err) = run(&["--schema", schema.to_str().unwrap()]).await;
    assert!(
        code != 0 && (out.clone() + &err).contains("gave no valid output"),
        "the script writes no JSON: {out}{err}"
    );
}

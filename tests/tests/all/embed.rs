//! `Models.Embed` from outside: vectors of the demo model, refusals, limits of callers, metrics and spans.

use std::process::Stdio;
use std::time::Duration;

use artel_proto::v1;
use artel_tests::prometheus::scrape;
use artel_tests::scripted::{SCRIPTED_CATALOG, model_script, scripted_daemon};
use artel_tests::trace_collector::{TraceCollector, span_attributes};
use artel_tests::{CallerChannel, Daemon, daemon, test_catalog};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

const TEXTS: [&str; 3] =
    ["How do I train a LoRA adapter?", "fine-tuning with low-rank adapters", "the weather in Paris"];
/// How far a vector may be from the same one that was computed with others: its matrices are multiplied in other orders.
const BATCH_TOLERANCE: f32 = 2e-3;

fn texts(inputs: &[&str]) -> v1::EmbedRequest {
    let inputs = inputs.iter().map(|text| (*text).to_owned()).collect();
    v1::EmbedRequest { model: "minilm".to_owned(), inputs, ..v1::EmbedRequest::default() }
}

async fn embed(daemon: &Daemon, request: v1::EmbedRequest) -> Result<v1::EmbedResponse, Status> {
    daemon.models().embed(request).await.map(tonic::Response::into_inner)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_embedded_together_as_they_are_alone() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let together = embed(&daemon, texts(&TEXTS)).await.unwrap();
    let vectors: Vec<&[f32]> = together.embeddings.iter().map(|embedding| &embedding.values[..]).collect();
    assert_eq!(vectors.iter().map(|vector| vector.len()).collect::<Vec<_>>(), [384; 3]);
    for vector in &vectors {
        assert!((dot(vector, vector) - 1.0).abs() < 1e-4, "a unit vector");
    }
    assert!(dot(vectors[0], vectors[1]) > dot(vectors[0], vectors[2]) + 0.2);
    let counted: u32 = together.embeddings.iter().map(|embedding| embedding.tokens).sum();
    assert_eq!(
        (u64::from(counted), together.embeddings[2].tokens),
        (together.prompt_tokens, 6),
        "[CLS] and [SEP] count"
    );
    for (at, text) in TEXTS.iter().enumerate() {
        let alone = embed(&daemon, texts(&[text])).await.unwrap();
        let difference = alone.embeddings[0].values.iter().zip(vectors[at]).map(|(a, b)| (a - b).abs());
        let largest = difference.fold(0.0, f32::max);
        assert!(largest <= BATCH_TOLERANCE, "{text}: {largest}");
    }
    // More texts than fit into one batch, in their order.
    let many: Vec<&str> = TEXTS.iter().copied().cycle().take(48).collect();
    let many = embed(&daemon, texts(&many)).await.unwrap();
    for (at, embedding) in many.embeddings.iter().enumerate() {
        assert!(dot(&embedding.values, vectors[at % 3]) > 0.999, "{at}");
    }
    let short = embed(&daemon, v1::EmbedRequest { dimensions: 64, ..texts(&TEXTS) }).await.unwrap();
    let values = &short.embeddings[0].values;
    assert!(values.len() == 64 && (dot(values, values) - 1.0).abs() < 1e-4);
    let ratio = values[0] / values[1];
    assert!((ratio - vectors[0][0] / vectors[0][1]).abs() < 1e-2 * ratio.abs().max(1.0), "the first numbers");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_embedded_is_refused_in_words() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let refused = async |request: v1::EmbedRequest| embed(&daemon, request).await.unwrap_err();
    let named = |model: &str| v1::EmbedRequest { model: model.to_owned(), ..texts(&TEXTS) };
    let status = refused(named("minilmm")).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "DEFINITION_NOT_FOUND"));
    assert!(status.message().contains("did you mean `minilm`?"), "{status}");
    let status = refused(named("talk")).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "WRONG_USE"));
    assert_eq!(status.message(), "model `talk` has `use: chat`, and this call needs one with `use: embedding`");
    let long = "word ".repeat(1000);
    let status = refused(texts(&["short", &long])).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "inputs[1]: has 1002 tokens, the model takes 512");
    let cut = embed(&daemon, v1::EmbedRequest { truncate: true, ..texts(&["short", &long]) }).await.unwrap();
    assert_eq!(cut.embeddings[1].tokens, 512);
    let status = refused(v1::EmbedRequest { dimensions: 385, ..texts(&TEXTS) }).await;
    assert_eq!(status.message(), "dimensions: is 385, and the vectors of this model have 384 numbers");
    let status = refused(texts(&["a", ""])).await;
    assert_eq!(status.message(), "inputs[1]: is empty");
    assert_eq!(refused(v1::EmbedRequest::default()).await.message(), "model: is empty; inputs: is empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_needs_the_scope_and_its_tokens_of_the_day_count() {
    let daemon = scripted_daemon().start().await;
    let call = async |token: &str, text: &str| {
        let mut models = v1::models_client::ModelsClient::<CallerChannel>::new(daemon.caller(token));
        models.embed(texts(&[text])).await.map(tonic::Response::into_inner)
    };
    let reader = daemon.create_token("reader", "read", &[]).await;
    let refused = call(&reader, "a text").await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "MISSING_SCOPE"));
    let ci = daemon.create_token("ci", "submit", &["--tokens-per-day=6"]).await;
    assert_eq!(call(&ci, "a text").await.unwrap().prompt_tokens, 6);
    let refused = call(&ci, "a text").await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "CALLER_LIMIT"));
    assert_eq!(refused.get_details_error_info().unwrap().metadata["limit"], "tokens_per_day");
    let few = daemon.create_token("few", "submit", &["--calls-per-minute=1"]).await;
    call(&few, "a text").await.unwrap();
    let refused = call(&few, "a text").await.unwrap_err();
    assert_eq!(refused.get_details_error_info().unwrap().metadata["limit"], "calls_per_minute");
    let (_, metrics) = scrape(&daemon).await;
    for sample in [
        "artel_caller_tokens_total{caller=\"ci\",kind=\"prompt\"} 6\n",
        "artel_grpc_calls_total{method=\"artel.v1.Models/Embed\",code=\"OK\"} 2\n",
        "artel_grpc_calls_total{method=\"artel.v1.Models/Embed\",code=\"RESOURCE_EXHAUSTED\"} 2\n",
    ] {
        assert!(metrics.contains(sample), "no {sample} in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_a_span_with_its_request_below_it() {
    let collector = TraceCollector::start().await;
    let settings = format!("grace: 60s\ntraces: {{endpoint: 'http://{}'}}\n", collector.address);
    let daemon =
        daemon().with_yaml(SCRIPTED_CATALOG).with_failpoints(&model_script()).with_settings(&settings).start().await;
    embed(&daemon, texts(&["a canary"])).await.unwrap();
    let received = collector.until(|spans| spans.iter().any(|span| span.name == "artel.v1.Models/Embed")).await;
    let span = |name: &str| received.spans.iter().find(|span| span.name == name).unwrap();
    let (call, request) = (span("artel.v1.Models/Embed"), span("embeddings minilm"));
    assert_eq!((&request.parent_span_id, &request.trace_id), (&call.span_id, &call.trace_id));
    assert_eq!(span_attributes(request)["gen_ai.usage.input_tokens"], json!(8));
    assert!(!format!("{:?}", received.spans).contains("canary"), "no text is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_call_and_the_engine_serves_on() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let many: Vec<String> = (0..256).map(|at| format!("{at} {}", "word ".repeat(400))).collect();
    let mut request = Request::new(v1::EmbedRequest { inputs: many, ..texts(&[]) });
    request.set_timeout(Duration::from_millis(1500));
    let refused = daemon.models().embed(request).await.unwrap_err();
    assert!(matches!(refused.code(), Code::DeadlineExceeded | Code::Cancelled), "{refused}");
    assert_eq!(embed(&daemon, texts(&TEXTS)).await.unwrap().embeddings.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verb_embeds_its_arguments_or_the_lines_of_its_input() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let (code, out, err) = daemon.cli(["embed", "minilm", "the weather in Paris"]).run().await;
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("384 numbers, 6 tokens: ") && out.ends_with("...  the weather in Paris\n"), "{out}");
    let mut command = daemon.cli(["embed", "minilm", "--dimensions", "8", "--json"]).into_command();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"one\n\ntwo\n").await.unwrap();
    let out = String::from_utf8(child.wait_with_output().await.unwrap().stdout).unwrap();
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert_eq!((&lines[1]["index"], lines[1]["values"].as_array().unwrap().len()), (&json!(1), 8));
    let (code, _, err) = daemon.cli(["embed", "talk", "a"]).run().await;
    assert!(code == 1 && err.contains("needs one with `use: embedding`"), "{code} {err}");
}

//! Traces: the spans of a task from its caller to the engine, at a collector that speaks OTLP/gRPC; and a collector that is away.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_proto::v1::submit_request::Target;
use artel_tests::https::exchange;
use artel_tests::prometheus::{scrape, until_scraped};
use artel_tests::scripted::{SCRIPTED_CATALOG, model_script};
use artel_tests::trace_collector::{Span, TraceCollector, span_attributes};
use artel_tests::{Daemon, DaemonBuilder, daemon, task_request, test_catalog};
use nix::sys::signal::Signal;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::{Code, Request};

/// The end of a daemon that waits for a collector which hangs, on a busy machine.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const CALLER_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER_SPAN: &str = "00f067aa0ba902b7";
/// A text of a caller, which no span may have.
const CANARY: &str = "Which sail for a storm?";

fn scripted_daemon(settings: &str) -> DaemonBuilder {
    daemon().with_yaml(SCRIPTED_CATALOG).with_failpoints(&model_script()).with_settings(settings)
}

fn traced_to(collector: &TraceCollector) -> String {
    format!("grace: 60s\ntraces: {{endpoint: 'http://{}'}}\n", collector.address)
}

fn parent(flags: &str) -> String {
    format!("00-{CALLER_TRACE}-{CALLER_SPAN}-{flags}")
}

fn submission(graph: &str) -> v1::SubmitRequest {
    let target = Some(Target::Graph(graph.to_owned()));
    v1::SubmitRequest { target, input: CANARY.to_owned(), ..v1::SubmitRequest::default() }
}

fn with_parent<T>(message: T, parent: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    request.metadata_mut().insert("tracestate", "vendor=1".parse().unwrap());
    request
}

/// Runs a task to its end in a call with this `traceparent`; its id.
async fn run(daemon: &Daemon, graph: &str, parent: Option<&str>) -> String {
    let message = v1::RunRequest { submit: Some(submission(graph)), cancel_on_disconnect: false };
    let request = match parent {
        Some(parent) => with_parent(message, parent),
        None => Request::new(message),
    };
    let mut stream = daemon.tasks().run(request).await.unwrap().into_inner();
    let (mut id, mut last) = (String::new(), None);
    while let Some(event) = stream.message().await.unwrap() {
        (id, last) = (event.task_id, event.kind);
    }
    assert!(matches!(last, Some(Kind::Completed(_))), "{last:?}");
    id
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The span of this name, of which there is one.
fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let named: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    let [span] = named[..] else { panic!("{name}: {named:#?}") };
    span
}

/// How many spans of each name are below each name; the caller's own is `caller`.
fn edges(spans: &[Span]) -> BTreeMap<(String, String), usize> {
    let name = |id: &[u8]| match spans.iter().find(|span| span.span_id == id) {
        Some(span) => span.name.clone(),
        None if hex(id) == CALLER_SPAN => "caller".to_owned(),
        None => format!("unknown {}", hex(id)),
    };
    let mut edges = BTreeMap::new();
    for span in spans {
        *edges.entry((name(&span.parent_span_id), span.name.clone())).or_default() += 1;
    }
    edges
}

/// Whether the journal of a daemon that runs has this text.
fn journal_has(daemon: &Daemon, text: &str) -> bool {
    let journal = std::fs::read(daemon.dir().join("data/journal.sqlite-wal")).unwrap();
    journal.windows(text.len()).any(|window| window == text.as_bytes())
}

fn has_ended(spans: &[Span]) -> bool {
    spans.iter().any(|span| span.name == "artel.v1.Tasks/Run")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_over_http_is_a_span_below_its_caller_s() {
    let collector = TraceCollector::start().await;
    let daemon = scripted_daemon(&traced_to(&collector)).start().await;
    let body = json!({"model": "writer", "messages": [{"role": "user", "content": CANARY}]});
    let request = daemon.openai().post("/v1/chat/completions", &body).header("traceparent", parent("01"));
    assert_eq!(artel_tests::openai::answer(request).await.status.as_u16(), 200);
    let name = "POST /v1/chat/completions";
    let spans = collector.until(|spans| spans.iter().any(|span| span.name == name)).await.spans;
    let call = one(&spans, name);
    assert_eq!((hex(&call.trace_id).as_str(), hex(&call.parent_span_id).as_str()), (CALLER_TRACE, CALLER_SPAN));
    let attributes = span_attributes(call);
    assert_eq!(
        (&attributes["http.route"], &attributes["http.response.status_code"]),
        (&json!("/v1/chat/completions"), &json!(200))
    );
    let below = spans.iter().filter(|span| span.parent_span_id == call.span_id).count();
    assert_eq!(below, 1, "the task: {spans:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_a_tree_of_spans_below_its_caller_s() {
    let collector = TraceCollector::start().await;
    let daemon = scripted_daemon(&traced_to(&collector)).start().await;
    let id = run(&daemon, "fan", Some(&parent("01"))).await;
    let received = collector.until(has_ended).await;
    let spans = &received.spans;
    let edge = |above: &str, below: &str| (above.to_owned(), below.to_owned());
    let expected = BTreeMap::from([
        (edge("caller", "artel.v1.Tasks/Run"), 1),
        (edge("artel.v1.Tasks/Run", "invoke_workflow fan"), 1),
        (edge("invoke_workflow fan", "route pick"), 1),
        (edge("route pick", "embeddings minilm"), 1),
        (edge("invoke_workflow fan", "invoke_agent sailor"), 3),
        (edge("invoke_agent sailor", "chat talk"), 3),
    ]);
    assert_eq!(edges(spans), expected, "{spans:#?}");
    for span in spans {
        assert_eq!((hex(&span.trace_id).as_str(), span.trace_state.as_str()), (CALLER_TRACE, "vendor=1"));
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
        assert!(!format!("{span:?}").contains("sail for"), "no text is told: {span:?}");
    }
    let task = one(spans, "invoke_workflow fan");
    assert_eq!(hex(&task.span_id), id.replace('-', "")[16..], "the span of a task is known by its id");
    let told = span_attributes(task);
    for (key, value) in [
        ("gen_ai.operation.name", json!("invoke_workflow")),
        ("gen_ai.workflow.name", json!("fan")),
        ("artel.task.id", json!(id)),
        ("artel.task.outcome", json!("completed")),
        ("artel.task.steps", json!(4)),
        ("artel.task.resumes", json!(0)),
    ] {
        assert_eq!(told[key], value, "{key}: {told}");
    }
    let route = span_attributes(one(spans, "route pick"));
    assert_eq!((&route["artel.router.choice"], &route["artel.step.id"]), (&json!("sailor"), &json!("pick")), "{route}");
    let call = span_attributes(one(spans, "artel.v1.Tasks/Run"));
    assert_eq!(call["rpc.system.name"], "grpc");
    assert_eq!((&call["rpc.method"], &call["rpc.response.status_code"]), (&json!("artel.v1.Tasks/Run"), &json!("OK")));
    assert_eq!(
        (&received.resource["service.name"], &received.resource["service.version"]),
        (&json!("artel"), &json!("0.1.0"))
    );
    assert!(journal_has(&daemon, CALLER_TRACE), "the task keeps its place in the trace");
    until_scraped(&daemon, &format!("artel_trace_spans_total{{outcome=\"exported\"}} {}", spans.len())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_an_engine_says_what_was_asked_and_what_it_took() {
    let collector = TraceCollector::start().await;
    let daemon = daemon().with_yaml(&test_catalog()).with_settings(&traced_to(&collector)).start().await;
    run(&daemon, "chain", Some(&parent("01"))).await;
    let spans = collector.until(has_ended).await.spans;
    let requests: Vec<(&Span, Value)> =
        spans.iter().filter(|span| span.name == "chat talk").map(|span| (span, span_attributes(span))).collect();
    let [(answer, said), (_, judged)] = &requests[..] else { panic!("{spans:#?}") };
    for (key, value) in [
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.provider.name", json!("artel")),
        ("gen_ai.request.model", json!("talk")),
        ("gen_ai.agent.name", json!("short")),
        ("gen_ai.request.max_tokens", json!(16)),
        ("gen_ai.request.temperature", json!(0.0)),
        ("gen_ai.output.type", json!("text")),
    ] {
        assert_eq!(said[key], value, "{key}: {said}");
    }
    assert_eq!(
        (&judged["gen_ai.agent.name"], &judged["gen_ai.output.type"]),
        (&json!("judge"), &json!("json")),
        "{judged}"
    );
    assert_eq!(judged["gen_ai.response.finish_reasons"], json!(["stop"]), "{judged}");
    let seconds = |key: &str| said[key].as_f64().unwrap_or_else(|| panic!("{key}: {said}"));
    assert!(said["gen_ai.usage.input_tokens"].as_u64() > Some(0), "{said}");
    let output = said["gen_ai.usage.output_tokens"].as_u64().unwrap();
    assert!((1..=16).contains(&output), "{said}");
    let took = Duration::from_nanos(answer.end_time_unix_nano - answer.start_time_unix_nano).as_secs_f64();
    let stages = ["queue", "prefill", "decode"].map(|stage| seconds(&format!("artel.engine.{stage}")));
    assert!(stages.iter().sum::<f64>() <= took, "the engine measures within the request: {said}, {took} s");
    assert!(seconds("gen_ai.response.time_to_first_chunk") <= took && stages[1] > 0.0, "{said}");
    assert!(spans.iter().all(|span| !format!("{span:?}").contains("sail for")), "{spans:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_and_the_fraction_decide_what_is_traced() {
    let collector = TraceCollector::start().await;
    let settings = traced_to(&collector).replace("'}", "', sample: 0}");
    let daemon = scripted_daemon(&settings).start().await;
    run(&daemon, "line", None).await;
    run(&daemon, "line", Some(&parent("00"))).await;
    let mut stranger = v1::tasks_client::TasksClient::new(daemon.channel());
    let refused = stranger.submit(with_parent(submission("line"), &parent("01"))).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    let unknown =
        v1::GetTaskRequest { task_id: "01a22746-defb-7da3-9254-044c42583223".to_owned(), ..Default::default() };
    assert_eq!(daemon.tasks().get(unknown.clone()).await.unwrap_err().code(), Code::NotFound);
    let traced = daemon.tasks().get(with_parent(unknown, &parent("01"))).await;
    assert_eq!(traced.unwrap_err().code(), Code::NotFound);
    let id = run(&daemon, "line", Some(&parent("01"))).await;
    let spans = collector.until(has_ended).await.spans;
    let tasks: Vec<Value> =
        spans.iter().filter(|span| span.name.starts_with("invoke_workflow")).map(span_attributes).collect();
    assert_eq!(tasks.len(), 1, "{spans:#?}");
    assert_eq!(tasks[0]["artel.task.id"], json!(id));
    let get = one(&spans, "artel.v1.Tasks/Get");
    assert_eq!(span_attributes(get)["rpc.response.status_code"], json!("NOT_FOUND"));
    assert_eq!(get.status.as_ref().unwrap().code, 0, "an error of the caller is none of the daemon");
    assert_eq!(spans.iter().filter(|span| span.name == "artel.v1.Tasks/Submit").count(), 0, "{spans:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_of_a_page_is_as_good_as_metadata() {
    let collector = TraceCollector::start().await;
    let daemon = scripted_daemon(&traced_to(&collector)).start().await;
    let message = submission("line").encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[0], &length[..], &message[..]].concat();
    let stream = TcpStream::connect(daemon.address.trim_start_matches("http://")).unwrap();
    let (token, parent) = (format!("Bearer {}", daemon.token.trim()), parent("01"));
    let headers = [
        ("host", "localhost"),
        ("content-type", "application/grpc-web+proto"),
        ("authorization", &token),
        ("traceparent", &parent),
    ];
    let answer = exchange(stream, "POST /artel.v1.Tasks/Submit", &headers, &body).unwrap();
    assert!(answer.text().contains("grpc-status:0"), "{answer:?}");
    let ended = |spans: &[Span]| spans.iter().any(|span| span.name == "invoke_workflow line");
    let spans = collector.until(ended).await.spans;
    let (task, call) = (one(&spans, "invoke_workflow line"), one(&spans, "artel.v1.Tasks/Submit"));
    assert_eq!((&task.parent_span_id, hex(&call.parent_span_id)), (&call.span_id, CALLER_SPAN.to_owned()));
    assert_eq!(hex(&task.trace_id), CALLER_TRACE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_on_in_its_trace_after_the_daemon_was_killed() {
    let collector = TraceCollector::start().await;
    let mut daemon = scripted_daemon(&traced_to(&collector)).killed_at("after:4").start().await;
    let submitted = daemon.tasks().submit(with_parent(submission("line"), &parent("01"))).await;
    daemon.wait().await;
    let daemon = daemon.restart().await;
    let id = match submitted {
        Ok(task) => task.into_inner().id,
        // The daemon was killed before the answer was sent.
        Err(_) => {
            let listed = daemon.tasks().list(v1::ListTasksRequest::default()).await.unwrap().into_inner();
            listed.tasks[0].id.clone()
        }
    };
    daemon.watch(&id, 0).await.end().await;
    let ended = |spans: &[Span]| spans.iter().any(|span| span.name == "invoke_workflow line");
    let spans = collector.until(ended).await.spans;
    let task = one(&spans, "invoke_workflow line");
    let told = span_attributes(task);
    assert_eq!((&told["artel.task.id"], &told["artel.task.resumes"]), (&json!(id), &json!(1)), "{told}");
    assert_eq!(hex(&task.trace_id), CALLER_TRACE);
    let last = spans.iter().find(|span| span_attributes(span)["artel.step.id"] == "d").unwrap();
    assert_eq!((&last.parent_span_id, &last.trace_id), (&task.span_id, &task.trace_id));
    assert!(task.start_time_unix_nano < last.start_time_unix_nano, "it began with the first process");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_set_aside_ends_its_trace_when_it_is_cancelled() {
    let collector = TraceCollector::start().await;
    let crasher =
        "---\nrole: crasher\ndescription: Ends its engine.\nmodel: talk\nprompt: You crash.\nlimits: {retries: 0}\n";
    let mut script = model_script();
    script["replies"].as_array_mut().unwrap().insert(0, json!({"when": ["You crash."], "fault": "panic"}));
    let builder = daemon().with_yaml(&format!("{SCRIPTED_CATALOG}{crasher}")).with_failpoints(&script);
    let daemon = builder.with_settings(&traced_to(&collector)).start().await;
    let id = daemon.submit(task_request(CANARY).with_role("crasher")).await.unwrap().id;
    daemon.watch(&id, 0).await.until(|kind| matches!(kind, Kind::SetAside(_))).await;
    daemon.cancel(&id).await;
    let ended = |spans: &[Span]| spans.iter().any(|span| span.name == "invoke_workflow crasher");
    let spans = collector.until(ended).await.spans;
    let told = span_attributes(one(&spans, "invoke_workflow crasher"));
    assert_eq!(told["artel.task.outcome"], json!("cancelled"), "{told}");
    let requests: Vec<Value> = spans.iter().filter(|span| span.name == "chat talk").map(span_attributes).collect();
    assert!(!requests.is_empty() && requests.iter().all(|told| told["error.type"] == "interrupted"), "{requests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_by_default() {
    let daemon = scripted_daemon("grace: 60s\n").start().await;
    run(&daemon, "line", Some(&parent("01"))).await;
    let (_, metrics) = scrape(&daemon).await;
    for outcome in ["exported", "dropped", "refused"] {
        assert!(metrics.contains(&format!("artel_trace_spans_total{{outcome=\"{outcome}\"}} 0\n")), "{metrics}");
    }
    let log = daemon.whole_log().await;
    assert!(!log.contains("collector"), "{log}");
    assert!(!journal_has(&daemon, CALLER_TRACE), "nothing is kept of it");
}

/// Sends SIGTERM and waits for the end; the exit code.
async fn terminated(daemon: &mut Daemon) -> Option<i32> {
    daemon.signal(Signal::SIGTERM);
    tokio::time::timeout(STOP_TIMEOUT, daemon.wait()).await.expect("it ends").code()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_collector_holds_nothing_up() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut daemon = scripted_daemon(&format!("grace: 5s\ntraces: {{endpoint: 'http://{address}'}}\n")).start().await;
    for _ in 0..5 {
        run(&daemon, "line", None).await;
    }
    daemon.until_logged("spans are not delivered").await;
    run(&daemon, "line", None).await;
    assert_eq!(terminated(&mut daemon).await, Some(0), "{}", daemon.log());
    assert_eq!(daemon.log().matches("spans are not delivered").count(), 1, "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_costs_spans_and_no_task() {
    // Connections are made, and nothing reads them.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let items = "0, ".repeat(256);
    let many = format!(
        "---\ngraph: many\ndescription: Many at once.\nstart: each\nlimits: {{steps: 1000, tokens: 1000000}}\nnodes:\n  \
         each: {{role: sailor, for_each: {{list: '[{items}]', at_most: 256, parallel: 64}}, message: Hello, next: done}}\n"
    );
    let settings = format!("grace: 5s\ntraces: {{endpoint: 'http://{address}'}}\n");
    let builder = scripted_daemon(&settings).with_yaml(&format!("{SCRIPTED_CATALOG}{many}"));
    let mut daemon = builder.start().await;
    for _ in 0..10 {
        run(&daemon, "many", None).await;
    }
    let (_, metrics) = scrape(&daemon).await;
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("artel_trace_spans_total{outcome=\"dropped\"} "));
    assert!(dropped.unwrap().parse::<u64>().unwrap() > 0, "{metrics}");
    assert_eq!(terminated(&mut daemon).await, Some(0), "{}", daemon.log());
    assert!(daemon.log().lines().last().unwrap().contains("spans that the collector did not take"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_with_tls_gets_the_headers_of_the_file_which_nothing_else_shows() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let collector = TraceCollector::start_with_tls(&cert.pem(), &signing_key.serialize_pem()).await;
    let secret = "secret-of-the-collector";
    let settings = format!(
        "grace: 60s\ntraces: {{endpoint: 'https://{}', headers_file: headers, ca: ca.pem}}\n",
        collector.address
    );
    let builder = scripted_daemon(&settings);
    std::fs::write(builder.dir().join("ca.pem"), cert.pem()).unwrap();
    let headers = builder.dir().join("headers");
    std::fs::write(&headers, format!("# a comment\nauthorization: Bearer {secret}\n")).unwrap();
    std::fs::set_permissions(&headers, std::fs::Permissions::from_mode(0o644)).unwrap();
    let daemon = builder.start().await;
    run(&daemon, "line", None).await;
    let received = collector.until(has_ended).await;
    assert_eq!(received.authorization, Some(format!("Bearer {secret}")));
    let (code, shown, warned) =
        daemon.cli(["config", "show"]).arg("--config").arg(daemon.dir().join("settings.yaml")).run().await;
    assert!(code == 0 && shown.contains("traces.headers_file") && !shown.contains(secret), "{shown}");
    assert!(warned.contains("other users can read the headers of `traces`"), "{warned}");
    let log = daemon.whole_log().await;
    assert!(!log.contains(secret), "{log}");
}

//! The answers of chat completions, whole and as streams.

use std::time::Duration;

use artel_proto::v1;
use artel_proto::v1::event::Kind as K;
use artel_proto::v1::tool_call_delta::Part;
use axum::body::Body;
use axum::http::Response;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::scripted::{
    CREATED_SECS, Play, ReadResponse, Scripted, TASK_ID, call_part, completed, completed_text, failed, live, output,
    refusal, step_finished, thought, token, usage_json,
};

const PATH: &str = "/v1/chat/completions";

fn request(stream: bool) -> Value {
    json!({"model": "helper", "messages": [{"role": "user", "content": "hello"}], "stream": stream,
        "stream_options": {"include_usage": true}})
}

async fn answer_with(plays: impl IntoIterator<Item = Play>, headers: &[(&str, &str)], body: &Value) -> ReadResponse {
    let (services, _signals) = Scripted::new();
    let services = services.plays(plays);
    ReadResponse::of(services.post(PATH, headers, body).await).await
}

async fn streamed(plays: impl IntoIterator<Item = Play>) -> ReadResponse {
    answer_with(plays, &[], &request(true)).await
}

/// The first choices of all chunks that have one.
fn choices(chunks: &[Value]) -> Vec<&Value> {
    chunks.iter().filter_map(|chunk| chunk["choices"].get(0)).collect()
}

fn deltas(chunks: &[Value]) -> Vec<&Value> {
    choices(chunks).into_iter().map(|choice| &choice["delta"]).collect()
}

/// The text of a field of all deltas.
fn joined(chunks: &[Value], field: &str) -> String {
    deltas(chunks).into_iter().filter_map(|delta| delta[field].as_str()).collect()
}

fn called(id: &str, name: &str, arguments: &str) -> v1::ToolCall {
    v1::ToolCall { id: id.to_owned(), name: name.to_owned(), arguments: arguments.to_owned() }
}

fn begin(id: &str, name: &str) -> Part {
    Part::Begin(v1::ToolCallBegin { id: id.to_owned(), name: name.to_owned() })
}

#[tokio::test]
async fn a_whole_answer_has_every_field() {
    let result = v1::Output { reasoning: "hm".to_owned(), ..output("hello") };
    let plays = [token("s1", "answer", 0, "hel"), step_finished(), completed(result)];
    let response = answer_with(plays, &[], &request(false)).await;
    assert_eq!((response.status.as_u16(), response.header("x-artel-task")), (200, TASK_ID));
    let message = json!({"role": "assistant", "content": "hello", "refusal": null, "reasoning_content": "hm",
        "reasoning": "hm"});
    let expected = json!({
        "id": format!("chatcmpl-{TASK_ID}"),
        "object": "chat.completion",
        "created": CREATED_SECS,
        "model": "helper",
        "system_fingerprint": "fp_abcdef0123",
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"}],
        "usage": usage_json(),
        "artel": {"task": TASK_ID, "not_taken": []},
    });
    assert_eq!(response.json(), expected);
}

#[tokio::test]
async fn calls_of_tools_are_returned_for_the_client_to_run() {
    let calls = vec![called("abcdefghi", "get", "{\"a\":1}")];
    let result = v1::Output { calls, finish: Some(v1::FinishReason::Calls.into()), ..v1::Output::default() };
    let response = answer_with([completed(result)], &[], &request(false)).await;
    let choice = &response.json()["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("tool_calls"), &Value::Null));
    let call = json!({"id": "abcdefghi", "type": "function", "function": {"name": "get", "arguments": "{\"a\":1}"}});
    assert_eq!(choice["message"]["tool_calls"], json!([call]));
}

#[tokio::test]
async fn alternatives_are_choices_of_their_own() {
    let other = v1::Output { finish: Some(v1::FinishReason::Length.into()), ..output("two") };
    let result = || v1::Output { alternatives: vec![other.clone()], ..output("one") };
    let whole = answer_with([completed(result())], &[], &request(false)).await.json();
    let told = |choice: &Value| {
        (choice["index"].clone(), choice["message"]["content"].clone(), choice["finish_reason"].clone())
    };
    let found: Vec<_> = whole["choices"].as_array().unwrap().iter().map(told).collect();
    assert_eq!(found, [(json!(0), json!("one"), json!("stop")), (json!(1), json!("two"), json!("length"))]);
    let chunks = streamed([token("s1", "answer", 0, "one"), completed(result())]).await.chunks();
    let of_other: Vec<&Value> = choices(&chunks).into_iter().filter(|choice| choice["index"] == 1).collect();
    assert_eq!((&of_other[0]["delta"]["role"], &of_other[0]["delta"]["content"]), (&json!("assistant"), &json!("two")));
    assert_eq!((&of_other[0]["finish_reason"], &of_other[1]["finish_reason"]), (&Value::Null, &json!("length")));
    assert_eq!(of_other.len(), 2);
}

#[tokio::test]
async fn the_likelihoods_of_tokens_are_told() {
    let top = vec![v1::TopLogprob { bytes: b"hi".to_vec(), logprob: -0.5 }];
    let tokens = vec![v1::TokenLogprob { bytes: b"hi".to_vec(), logprob: -0.5, forced: false, top }];
    let logprobs = Some(v1::Logprobs { tokens: tokens.clone(), truncated: false });
    let told = json!({"token": "hi", "logprob": -0.5, "bytes": [104, 105],
        "top_logprobs": [{"token": "hi", "logprob": -0.5, "bytes": [104, 105]}]});
    let more = |stream: bool| {
        let mut body = request(stream);
        body["logprobs"] = true.into();
        body["top_logprobs"] = 1.into();
        body
    };
    let result = v1::Output { logprobs, ..output("hi") };
    let whole = answer_with([completed(result.clone())], &[], &more(false)).await.json();
    assert_eq!(whole["choices"][0]["logprobs"], json!({"content": [told], "refusal": null}));
    let (step_id, node, text) = ("s1".to_owned(), "answer".to_owned(), "hi".to_owned());
    let live = v1::Token { step_id, node, text, logprobs: tokens, ..v1::Token::default() };
    let chunks = answer_with([Play::Event(K::Token(live)), completed(result)], &[], &more(true)).await.chunks();
    let told_in: Vec<&Value> = choices(&chunks).into_iter().map(|c| &c["logprobs"]).filter(|l| !l.is_null()).collect();
    assert_eq!(told_in, [&json!({"content": [told], "refusal": null})]);
}

#[tokio::test]
async fn a_stream_is_read_as_openai_writes_it() {
    let plays =
        [token("s1", "answer", 0, "hel"), token("s1", "answer", 3, "lo"), step_finished(), completed_text("hello")];
    let response = streamed(plays).await;
    assert_eq!(response.header("content-type"), "text/event-stream");
    assert_eq!((response.header("cache-control"), response.header("x-accel-buffering")), ("no-cache", "no"));
    assert_eq!(response.header("x-artel-task"), TASK_ID);
    let chunks = response.chunks();
    for chunk in &chunks {
        let common = (&chunk["id"], &chunk["object"], &chunk["created"], &chunk["model"], &chunk["system_fingerprint"]);
        let id = json!(format!("chatcmpl-{TASK_ID}"));
        let expected =
            (&id, &json!("chat.completion.chunk"), &json!(CREATED_SECS), &json!("helper"), &json!("fp_abcdef0123"));
        assert_eq!(common, expected);
    }
    // The role comes in the first delta only.
    let roles: Vec<bool> = deltas(&chunks).iter().map(|delta| delta.get("role").is_some()).collect();
    assert_eq!(roles, [true, false, false, false]);
    // The reason is null until the last chunk of the choice.
    let reasons: Vec<&Value> = choices(&chunks).iter().map(|choice| &choice["finish_reason"]).collect();
    assert_eq!(reasons, [&Value::Null, &Value::Null, &Value::Null, &json!("stop")]);
    assert_eq!(joined(&chunks, "content"), "hello");
    // The last one has the token counts and no choice, and the others have none.
    let last = chunks.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["total_tokens"]), (&json!([]), &json!(27)));
    assert!(chunks[..chunks.len() - 1].iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)));
    assert_eq!(last["artel"]["task"], TASK_ID);
}

#[tokio::test]
async fn without_a_word_of_usage_no_chunk_has_it() {
    let mut body = request(true);
    body.as_object_mut().unwrap().remove("stream_options");
    let chunks = answer_with([completed_text("hello")], &[], &body).await.chunks();
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
    let last = chunks.last().unwrap();
    assert_eq!((&last["choices"][0]["finish_reason"], &last["artel"]["task"]), (&json!("stop"), &json!(TASK_ID)));
}

#[tokio::test]
async fn a_call_has_its_index_in_each_delta_and_its_name_in_the_first() {
    let plays = [
        call_part(0, begin("id0000000", "get")),
        call_part(0, Part::Arguments("{\"a\"".to_owned())),
        call_part(0, Part::Arguments(":1}".to_owned())),
        call_part(0, Part::End(v1::ToolCallEnd {})),
        call_part(1, begin("id1111111", "now")),
        call_part(1, Part::Arguments("{}".to_owned())),
        call_part(1, Part::End(v1::ToolCallEnd {})),
        completed(v1::Output {
            calls: vec![called("id0000000", "get", "{\"a\":1}"), called("id1111111", "now", "{}")],
            finish: Some(v1::FinishReason::Calls.into()),
            ..v1::Output::default()
        }),
    ];
    let chunks = streamed(plays).await.chunks();
    let calls: Vec<&Value> = deltas(&chunks).into_iter().filter_map(|delta| delta["tool_calls"].get(0)).collect();
    let expected = [
        json!({"index": 0, "id": "id0000000", "type": "function", "function": {"name": "get", "arguments": ""}}),
        json!({"index": 0, "function": {"arguments": "{\"a\""}}),
        json!({"index": 0, "function": {"arguments": ":1}"}}),
        json!({"index": 1, "id": "id1111111", "type": "function", "function": {"name": "now", "arguments": ""}}),
        json!({"index": 1, "function": {"arguments": "{}"}}),
    ];
    assert_eq!(calls, expected.iter().collect::<Vec<_>>());
    assert_eq!(choices(&chunks).last().unwrap()["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn reasoning_has_both_of_its_names() {
    let result = v1::Output { reasoning: "so it is".to_owned(), ..output("yes") };
    let plays = [thought(0, "so "), thought(3, "it is"), token("s1", "answer", 0, "yes"), completed(result)];
    let chunks = streamed(plays).await.chunks();
    assert_eq!(joined(&chunks, "reasoning_content"), "so it is");
    assert_eq!(joined(&chunks, "reasoning"), "so it is");
    assert_eq!(joined(&chunks, "content"), "yes");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_never_silent_for_more_than_ten_seconds() {
    let (sender, play) = live();
    let (services, _signals) = Scripted::new();
    let services = services.plays([play]);
    let begun = tokio::time::Instant::now();
    let response = services.post(PATH, &[], &request(true)).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(1), "the head waits for the first part, and not for long");
    let mut body = response.into_body();
    let mut frame = async || {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        (begun.elapsed().as_secs(), String::from_utf8(frame.to_vec()).unwrap())
    };
    assert!(frame().await.1.contains("assistant"));
    assert_eq!(frame().await, (11, ": still computing\n\n".to_owned()));
    assert_eq!(frame().await, (21, ": still computing\n\n".to_owned()));
    let Play::Event(more) = token("s1", "answer", 0, "hi") else { panic!() };
    sender.send(more).unwrap();
    let (secs, text) = frame().await;
    assert!(secs == 21 && text.contains("\"content\":\"hi\""), "{text}");
    assert_eq!(frame().await, (31, ": still computing\n\n".to_owned()));
}

#[tokio::test]
async fn an_early_failure_has_its_status() {
    let full = || [failed(v1::FailureCode::QueueFull, "the queue of `helper` is full")];
    for stream in [false, true] {
        let response = answer_with(full(), &[], &request(stream)).await;
        assert_eq!((response.status.as_u16(), response.header("retry-after")), (429, "2"));
        assert_eq!(response.header("x-artel-task"), TASK_ID);
        let expected = json!({"error": {"message": "the queue of `helper` is full", "type": "rate_limit_error",
            "param": null, "code": "rate_limit_exceeded"}});
        assert_eq!(response.json(), expected);
    }
    let overflow = answer_with([failed(v1::FailureCode::ContextOverflow, "too long")], &[], &request(true)).await;
    assert_eq!((overflow.status.as_u16(), &overflow.json()["error"]["code"]), (400, &json!("context_length_exceeded")));
}

#[tokio::test]
async fn an_error_in_mid_stream_has_the_same_shape_and_ends_the_stream() {
    let plays = [token("s1", "answer", 0, "hel"), failed(v1::FailureCode::ModelUnavailable, "the engine exited")];
    let response = streamed(plays).await;
    assert_eq!(response.status, 200);
    let chunks = response.chunks();
    assert_eq!(joined(&chunks, "content"), "hel");
    let expected = json!({"error": {"message": "the engine exited", "type": "server_error", "param": null,
        "code": "model_unavailable"}});
    assert_eq!(chunks.last(), Some(&expected));
    assert!(choices(&chunks).iter().all(|choice| choice["finish_reason"].is_null()));
}

#[tokio::test]
async fn an_interrupted_stream_and_a_task_set_aside_are_errors() {
    let gone = Play::Fail(tonic::Status::unavailable("the daemon is shutting down"));
    let aside = Play::Event(K::SetAside(v1::SetAside { reason: "no progress".to_owned() }));
    let cancelled = Play::Event(K::Cancelled(v1::Cancelled { reason: "by hand".to_owned(), ..Default::default() }));
    for (play, status, code) in
        [(gone, 503, "unavailable"), (aside, 409, "task_set_aside"), (cancelled, 409, "task_cancelled")]
    {
        let response = answer_with([play], &[], &request(false)).await;
        assert_eq!((response.status.as_u16(), &response.json()["error"]["code"]), (status, &json!(code)));
        assert_eq!(response.header("x-artel-task"), TASK_ID);
    }
    let cut = answer_with([token("s1", "answer", 0, "h")], &[], &request(false)).await;
    assert_eq!((cut.status.as_u16(), &cut.json()["error"]["code"]), (503, &json!("interrupted")));
}

#[tokio::test]
async fn a_caller_beyond_its_limit_is_told_when_to_come_again() {
    let status = refusal(tonic::Code::ResourceExhausted, "CALLER_LIMIT", |details| {
        details.set_retry_info(Some(Duration::from_secs(5)));
    });
    let (services, _signals) = Scripted::new();
    let services = services.refuses(status);
    let response = ReadResponse::of(services.post(PATH, &[], &request(true)).await).await;
    assert_eq!((response.status.as_u16(), response.header("retry-after")), (429, "5"));
    assert_eq!(response.json()["error"]["code"], "rate_limit_exceeded");
}

#[tokio::test]
async fn a_very_long_line_arrives_whole() {
    let text = "ß".repeat(512 * 1024);
    let chunks = streamed([token("s1", "answer", 0, &text), completed_text(&text)]).await.chunks();
    assert_eq!(joined(&chunks, "content"), text);
}

#[tokio::test]
async fn an_empty_answer_is_a_text() {
    let whole = answer_with([completed_text("")], &[], &request(false)).await.json();
    assert_eq!(whole["choices"][0]["message"]["content"], "");
    let chunks = streamed([completed_text("")]).await.chunks();
    assert_eq!((joined(&chunks, "content").as_str(), chunks.len()), ("", 3));
}

/// The events of a graph of two nodes.
fn graph_plays() -> [Play; 5] {
    let started = |node: &str| {
        let (step_id, node, role) = (node.to_owned(), node.to_owned(), "r".to_owned());
        Play::Event(K::StepStarted(v1::StepStarted { step_id, node, role, attempt: 1, ..v1::StepStarted::default() }))
    };
    [
        started("plan"),
        token("s1", "plan", 0, "not the answer"),
        started("write"),
        token("s2", "write", 0, "the answer"),
        completed_text("the answer"),
    ]
}

#[tokio::test]
async fn of_a_graph_the_answering_node_alone_is_streamed_also_behind_auto() {
    for model in ["team", "graph:helper", "auto"] {
        let mut body = request(true);
        body["model"] = model.into();
        let response = answer_with(graph_plays(), &[], &body).await;
        let chunks = response.chunks();
        assert_eq!((joined(&chunks, "content").as_str(), response.comments().len()), ("the answer", 0));
    }
}

#[tokio::test]
async fn the_steps_of_a_graph_are_told_where_asked_for() {
    let mut body = request(true);
    body["model"] = "team".into();
    let response = answer_with(graph_plays(), &[("x-artel-events", "true")], &body).await;
    assert_eq!(response.comments(), ["plan (r): started", "write (r): started"]);
    assert_eq!(joined(&response.chunks(), "reasoning"), "");
    let response = answer_with(graph_plays(), &[("x-artel-events", "reasoning")], &body).await;
    assert_eq!(joined(&response.chunks(), "reasoning_content"), "plan (r): started\nwrite (r): started\n");
    assert_eq!(joined(&response.chunks(), "content"), "the answer");
    // They are no content: an early failure has its status all the same.
    for mode in ["true", "reasoning"] {
        let [started, ..] = graph_plays();
        let full = failed(v1::FailureCode::QueueFull, "full");
        assert_eq!(answer_with([started, full], &[("x-artel-events", mode)], &body).await.status, 429);
    }
}

#[tokio::test]
async fn an_answer_that_changes_in_a_retry_ends_with_an_error_that_names_the_task() {
    let plays = [token("s1", "answer", 0, "hello"), token("s2", "answer", 0, "howdy"), completed_text("howdy")];
    let chunks = streamed(plays).await.chunks();
    let error = &chunks.last().unwrap()["error"];
    assert_eq!((error["code"].as_str(), joined(&chunks, "content").as_str()), (Some("answer_changed"), "hello"));
    assert!(error["message"].as_str().unwrap().contains(TASK_ID));
}

#[tokio::test]
async fn a_client_that_goes_away_drops_the_stream_of_its_task() {
    let (services, mut signals) = Scripted::new();
    let (_sender, play) = live();
    let services = services.plays([token("s1", "answer", 0, "hel"), play]);
    let response: Response<Body> = services.post(PATH, &[], &request(true)).await;
    assert!(services.runs()[0].cancel_on_disconnect);
    drop(response);
    signals.dropped.recv().await.unwrap();
    // The same while it waits for the whole.
    let (services, mut signals) = Scripted::new();
    let (_sender, play) = live();
    let services = services.plays([play]);
    let body = request(false);
    assert!(tokio::time::timeout(Duration::ZERO, services.post(PATH, &[], &body)).await.is_err());
    signals.dropped.recv().await.unwrap();
}

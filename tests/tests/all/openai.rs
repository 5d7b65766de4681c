//! The OpenAI-compatible front on a running daemon: what clients of that API see, and what becomes of their tasks.

use std::time::Duration;

use artel_proto::v1;
use artel_tests::openai::{self, StreamLine, chunks, content};
use artel_tests::scripted::{SCRIPTED_CATALOG, model_script, scripted_daemon};
use artel_tests::{TaskOutcome, daemon, test_catalog};
use nix::sys::signal::Signal;
use reqwest::StatusCode;
use serde_json::{Value, json};

fn chat(model: &str, text: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": text}]})
}

fn streamed(model: &str, text: &str) -> Value {
    let mut body = chat(model, text);
    body["stream"] = true.into();
    body
}

/// The text of all chunks.
fn text_of(lines: &[StreamLine]) -> String {
    chunks(lines).iter().filter_map(content).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_graphs_and_models_are_models() {
    let daemon = scripted_daemon().start().await;
    let listed = daemon.openai().get("/v1/models").await;
    let ids: Vec<&str> = listed.body["data"].as_array().unwrap().iter().filter_map(|m| m["id"].as_str()).collect();
    for id in ["auto", "writer", "loop", "minilm"] {
        assert!(ids.contains(&id), "{id} in {ids:?}");
        let one = daemon.openai().get(&format!("/v1/models/{id}")).await;
        assert_eq!((one.status, &one.body["id"]), (StatusCode::OK, &json!(id)));
    }
    let writer = daemon.openai().get("/v1/models/writer/").await.body;
    assert_eq!((&writer["object"], &writer["owned_by"]), (&json!("model"), &json!("artel")), "{writer}");
    let unknown = daemon.openai().get("/v1/models/nothing").await;
    assert_eq!((unknown.status, &unknown.body["error"]["code"]), (StatusCode::NOT_FOUND, &json!("model_not_found")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_is_a_task_of_its_caller() {
    let daemon = scripted_daemon().start().await;
    let mut body = chat("writer", "Hello");
    body["metadata"] = json!({"user": "ann"});
    let answer = daemon.openai().chat(&body).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let choice = &answer.body["choices"][0];
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!("<Hello>"), &json!("stop")));
    let task = daemon.task(answer.headers["x-artel-task"].to_str().unwrap()).await;
    assert_eq!(
        (task.state(), task.role.as_str(), task.labels["user"].as_str()),
        (v1::TaskState::Completed, "writer", "ann")
    );
    assert_eq!(answer.body["id"], json!(format!("chatcmpl-{}", task.id)));
    let usage = task.usage.unwrap();
    assert_eq!(answer.body["usage"]["prompt_tokens"], json!(usage.prompt_tokens));
    assert_eq!(answer.body["usage"]["completion_tokens"], json!(usage.output_tokens));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_the_shape_that_clients_expect() {
    let daemon = scripted_daemon().start().await;
    let mut body = streamed("writer", "Hello");
    body["stream_options"] = json!({"include_usage": true});
    let lines = daemon.openai().chat_stream(&body, &[]).await.lines().await;
    assert_eq!((lines.last(), text_of(&lines).as_str()), (Some(&StreamLine::Done), "<Hello>"));
    let chunks = chunks(&lines);
    let with_role = chunks.iter().filter(|chunk| chunk["choices"][0]["delta"].get("role").is_some()).count();
    assert_eq!((with_role, &chunks[0]["choices"][0]["delta"]["role"]), (1, &json!("assistant")));
    let reasons: Vec<&Value> = chunks
        .iter()
        .filter(|chunk| chunk["choices"].as_array().is_some_and(|choices| !choices.is_empty()))
        .map(|chunk| &chunk["choices"][0]["finish_reason"])
        .collect();
    let (last, before) = reasons.split_last().unwrap();
    assert!(*last == "stop" && before.iter().all(|reason| reason.is_null()), "{reasons:?}");
    let usage = chunks.last().unwrap();
    assert!(usage["choices"] == json!([]) && usage["usage"]["total_tokens"].as_u64() > Some(0), "{usage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_answers_and_tells_its_steps_where_asked() {
    let daemon = scripted_daemon().start().await;
    let answer = daemon.openai().chat(&chat("loop", "Hello")).await;
    assert_eq!(answer.body["choices"][0]["message"]["content"], json!("again"), "{:?}", answer.body);
    let told =
        daemon.openai().chat_stream(&streamed("loop", "Hello"), &[("x-artel-events", "true")]).await.lines().await;
    assert_eq!(text_of(&told), "again");
    let comments: Vec<&String> =
        told.iter().filter_map(|line| if let StreamLine::Comment(text) = line { Some(text) } else { None }).collect();
    assert!(comments.iter().any(|text| text.contains("check")), "{comments:?}");
    let silent = daemon.openai().chat_stream(&streamed("loop", "Hello"), &[]).await.lines().await;
    assert!(!silent.iter().any(|line| matches!(line, StreamLine::Comment(_))), "{silent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_with_calls_of_the_callers_tools() {
    let daemon = scripted_daemon().start().await;
    let tool = json!({"type": "function", "function": {"name": "get_weather", "parameters":
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}});
    let text = "tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}</tool_call";
    let mut body = chat("writer", text);
    body["tools"] = json!([tool]);
    let answer = daemon.openai().chat(&body).await;
    let choice = &answer.body["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{:?}", answer.body);
    let call = choice["message"]["tool_calls"][0].clone();
    assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("get_weather")));
    body["stream"] = true.into();
    let lines = daemon.openai().chat_stream(&body, &[]).await.lines().await;
    let deltas: Vec<Value> =
        chunks(&lines).iter().filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].get(0).cloned()).collect();
    assert!(deltas[0]["id"].is_string() && deltas[0]["function"]["name"] == "get_weather", "{deltas:?}");
    assert!(
        deltas.iter().all(|delta| delta["index"] == 0) && deltas[1..].iter().all(|delta| delta.get("id").is_none())
    );
    let arguments: String = deltas.iter().filter_map(|delta| delta["function"]["arguments"].as_str()).collect();
    assert_eq!(arguments, call["function"]["arguments"]);
    let id = call["id"].clone();
    let turns = json!([
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": id, "content": "sunny"},
    ]);
    let answer = daemon.openai().chat(&json!({"model": "writer", "messages": turns, "tools": [tool]})).await;
    assert_eq!(answer.body["choices"][0]["message"]["content"], "<sunny>", "{:?}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_the_shape_and_the_status_that_clients_read() {
    let yaml = format!(
        "{SCRIPTED_CATALOG}---\nrole: closed\ndescription: Takes little.\nmodel: talk\nprompt: You write.\ncaller_system: false\n"
    );
    let daemon = daemon().with_yaml(&yaml).with_failpoints(&model_script()).start().await;
    let client = daemon.openai();
    let with = |model: &str, field: &str, value: Value| {
        let mut body = chat(model, "Hello");
        body[field] = value;
        body
    };
    let tools = || json!([{"type": "function", "function": {"name": "a"}}]);
    let requiring = |model: &str| {
        let mut body = with(model, "tools", tools());
        body["tool_choice"] = "required".into();
        body
    };
    let system = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]);
    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]);
    let schema = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}});
    for (body, status, param) in [
        (chat("nothing", "Hello"), 404, "model"),
        (chat("minilm", "Hello"), 400, "model"),
        (with("writer", "temperature", json!("warm")), 400, "temperature"),
        (with("writer", "n", json!(99)), 400, "n"),
        (with("writer", "messages", json!([])), 400, "messages"),
        (with("writer", "messages", image), 400, "messages"),
        (with("closed", "messages", system), 400, "messages"),
        (with("critic", "response_format", schema), 400, "response_format"),
        (requiring("loop"), 400, "tools"),
    ] {
        let answer = client.chat(&body).await;
        let error = &answer.body["error"];
        assert_eq!(answer.status.as_u16(), status, "{body} {error}");
        assert!(error["param"].as_str().is_some_and(|given| given.starts_with(param)), "{param}: {error}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()) && error["type"].is_string(), "{error}");
    }
    let told = client.chat(&with("loop", "tools", tools())).await;
    assert_eq!((told.status, &told.headers["x-artel-not-taken"]), (StatusCode::OK, &"tools".parse().unwrap()));
    let failed = client.chat(&chat("clown", "Hello")).await;
    assert!(failed.status.is_server_error(), "{failed:?}");
    let stranger = daemon.openai_of("artel_wrong").chat(&chat("writer", "Hello")).await;
    assert_eq!(
        (stranger.status, &stranger.body["error"]["type"]),
        (StatusCode::UNAUTHORIZED, &json!("authentication_error"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_beyond_its_limit_is_told_when_to_try_again() {
    let daemon = scripted_daemon().start().await;
    let limits = Some(v1::AccessLimits { calls_per_minute: 1, ..v1::AccessLimits::default() });
    let scopes = ["submit", "read"].map(str::to_owned).to_vec();
    let request = v1::CreateTokenRequest { name: "slow".to_owned(), scopes, lifetime: None, limits };
    let token = daemon.access().create_token(request).await.unwrap().into_inner().secret;
    let client = daemon.openai_of(&token);
    assert_eq!(client.chat(&chat("writer", "Hello")).await.status, StatusCode::OK);
    let refused = client.chat(&chat("writer", "Hello")).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers.contains_key("retry-after") && refused.body["error"]["type"] == "rate_limit_error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_cancels_its_task_unless_it_detaches() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let client = daemon.openai();
    let mut stream = client.chat_stream(&streamed("teller", "Tell a story."), &[]).await;
    let task = stream.task();
    stream.until_text().await.unwrap();
    drop(stream);
    assert!(matches!(daemon.watch(&task, 0).await.end().await, TaskOutcome::Cancelled(_)));
    let mut detached = client.chat_stream(&streamed("brief", "Hello"), &[("x-artel-detach", "true")]).await;
    let task = detached.task();
    detached.until_text().await.unwrap();
    drop(detached);
    assert!(matches!(daemon.watch(&task, 0).await.end().await, TaskOutcome::Completed(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_attaches_to_the_same_task_from_its_first_token() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let client = daemon.openai();
    let (body, key) = (streamed("teller", "Tell a story."), [("idempotency-key", "one and only")]);
    let mut first = client.chat_stream(&body, &key).await;
    let task = first.task();
    let begun = first.until_text().await.unwrap();
    drop(first);
    let mut second = client.chat_stream(&body, &key).await;
    assert_eq!(second.task(), task);
    let mut again = second.until_text().await.unwrap();
    while again.len() < begun.len() {
        again.push_str(&second.until_text().await.unwrap());
    }
    assert!(again.starts_with(&begun), "{again:?} after {begun:?}");
    assert_eq!(daemon.task(&task).await.state(), v1::TaskState::Running);
    let other = client.post("/v1/chat/completions", &streamed("teller", "Another story."));
    let refused = openai::stream(other.header("idempotency-key", "one and only")).await.err().unwrap();
    assert_eq!(refused.status, StatusCode::CONFLICT, "{:?}", refused.body);
}

/// Clients that attach again after a `kill -9` read the answer that the journal has; others are cancelled or lost with the daemon.
#[tokio::test(flavor = "multi_thread")]
async fn streams_survive_a_killed_daemon() {
    const STREAMS: usize = 32;
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let client = daemon.openai();
    let body = |n: usize| streamed("short", &format!("Say something about the number {n}."));
    let mut streams = Vec::new();
    for n in 0..STREAMS {
        let key = format!("stream-{n}");
        streams.push(client.chat_stream(&body(n), &[("idempotency-key", &key)]).await);
    }
    // Half of the clients go away, some before their first token.
    let (left, mut kept): (Vec<_>, Vec<_>) = streams.into_iter().enumerate().partition(|(n, _)| n * 7 % 13 < 6);
    let tasks: Vec<(usize, String)> = kept.iter().map(|(n, stream)| (*n, stream.task())).collect();
    assert!((STREAMS / 3..STREAMS * 2 / 3).contains(&left.len()));
    drop(left);
    kept[0].1.until_text().await;
    daemon.signal(Signal::SIGKILL);
    let daemon = daemon.restart().await;
    let client = daemon.openai();
    for (n, task) in tasks {
        let key = format!("stream-{n}");
        let again = client.chat_stream(&body(n), &[("idempotency-key", &key)]).await;
        assert_eq!(again.task(), task);
        let lines = again.lines().await;
        assert_eq!(lines.last(), Some(&StreamLine::Done), "{lines:?}");
        let journalled = daemon.task(&task).await.result.unwrap().text;
        assert_eq!(text_of(&lines), journalled);
    }
}

/// After a restart the events of a task are read from the journal; what its new attempt has written is told all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_attaches_after_a_restart_reads_from_the_first_token() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let (body, key) = (streamed("teller", "Tell a story."), [("idempotency-key", "story")]);
    let mut stream = daemon.openai().chat_stream(&body, &key).await;
    let task = stream.task();
    stream.until_text().await.unwrap();
    daemon.signal(Signal::SIGKILL);
    let daemon = daemon.restart().await;
    let client = daemon.openai();
    let mut first = client.chat_stream(&body, &key).await;
    let mut begun = String::new();
    while begun.len() < 20 {
        begun.push_str(&first.until_text().await.unwrap());
    }
    let mut late = client.chat_stream(&body, &key).await;
    let mut again = String::new();
    while again.len() < begun.len() {
        again.push_str(&late.until_text().await.unwrap());
    }
    assert_eq!((late.task().as_str(), daemon.task(&task).await.state()), (task.as_str(), v1::TaskState::Running));
    assert!(again.starts_with(&begun), "{again:?} after {begun:?}");
}

/// Of a graph in which two nodes run beside each other no tokens are streamed, and its answer comes whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_graph_with_several_ends_is_streamed_at_its_end() {
    let both = "---\ngraph: both\ndescription: Two ends.\nstart: a\nnodes:\n  a: {role: writer, next: [b, c]}\n  b: {role: sailor, next: done}\n  c: {role: writer, next: done}\n";
    let daemon =
        daemon().with_yaml(&format!("{SCRIPTED_CATALOG}{both}")).with_failpoints(&model_script()).start().await;
    let stream = daemon.openai().chat_stream(&streamed("both", "Hello"), &[]).await;
    let task = stream.task();
    let lines = stream.lines().await;
    assert_eq!(lines.last(), Some(&StreamLine::Done), "{lines:?}");
    assert_eq!(text_of(&lines), daemon.task(&task).await.result.unwrap().text);
}

/// A role and a graph of one name are two models.
#[tokio::test(flavor = "multi_thread")]
async fn a_graph_with_the_name_of_a_role_has_an_id_of_its_own() {
    let twin = "---\ngraph: writer\ndescription: Has the name of a role.\nstart: a\nnodes: {a: {role: sailor, next: b}, b: {role: sailor, next: done}}\n";
    let daemon =
        daemon().with_yaml(&format!("{SCRIPTED_CATALOG}{twin}")).with_failpoints(&model_script()).start().await;
    let client = daemon.openai();
    let answer = |model: &'static str| {
        let client = client.clone();
        async move { client.chat(&chat(model, "Hello")).await.body["choices"][0]["message"]["content"].clone() }
    };
    assert_eq!((answer("writer").await, answer("graph:writer").await), (json!("<Hello>"), json!("<<Hello>>")));
    assert_eq!(client.get("/v1/models/graph:writer").await.body["id"], "graph:writer");
    let lines = client.chat_stream(&streamed("graph:writer", "Hello"), &[]).await.lines().await;
    assert_eq!(text_of(&lines), "<<Hello>>");
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_and_a_completion_are_answered() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let client = daemon.openai();
    let floats = openai::answer(client.post("/v1/embeddings", &json!({"model": "minilm", "input": ["a", "b"]}))).await;
    assert_eq!(floats.status, StatusCode::OK, "{:?}", floats.body);
    assert_eq!(floats.body["data"].as_array().unwrap().len(), 2);
    let text =
        openai::answer(client.post("/v1/completions", &json!({"model": "short", "prompt": "Hello", "max_tokens": 3})))
            .await;
    assert!(text.body["choices"][0]["text"].is_string(), "{:?}", text.body);
    let asked = json!({"model": "short", "input": "Hello", "max_output_tokens": 3});
    let response = openai::answer(client.post("/v1/responses", &asked)).await;
    assert_eq!(response.body["object"], "response", "{:?}", response.body);
    let metrics = client.page("/metrics").await;
    assert!(metrics.contains("artel_http_requests_total{route=\"/v1/embeddings\",code=\"200\"} 1\n"), "{metrics}");
}

/// A closed socket frees the only sequence of its model: the next task starts at once, though the one before it would go on for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_socket_frees_its_sequence() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let client = daemon.openai();
    let mut stream = client.chat_stream(&streamed("teller", "Tell a story."), &[]).await;
    stream.until_text().await.unwrap();
    drop(stream);
    let next = tokio::time::timeout(Duration::from_secs(60), client.chat(&chat("brief", "Hello"))).await.unwrap();
    assert_eq!(next.status, StatusCode::OK);
    let engines = daemon.engines().list_engines(v1::ListEnginesRequest::default()).await.unwrap().into_inner();
    let solo = engines.engines.iter().find(|engine| engine.model == "solo").unwrap();
    assert!(solo.totals.as_ref().unwrap().output_tokens < 1500, "{solo:?}");
}

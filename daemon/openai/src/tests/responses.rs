//! `/v1/responses`.

use std::time::Duration;

use artel_proto::v1;
use artel_proto::v1::event::Kind as K;
use artel_proto::v1::tool_call_delta::Part;
use artel_proto::v1::{ChatRole, FailureCode};
use http_body_util::BodyExt as _;
use prost_types::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::scripted::{
    CREATED_SECS, Play, ReadResponse, Scripted, TASK_ID, call_part, completed, completed_text, failed, live, output,
    step_finished, thought, token,
};

async fn post(services: &Scripted, body: &Value) -> ReadResponse {
    ReadResponse::of(services.post("/v1/responses", &[], body).await).await
}

/// The events of a stream. The name of each is its type, and nothing stands between them.
fn events(stream: &str) -> Vec<Value> {
    let event = |lines: &str| {
        let (name, data) = lines.split_once('\n').unwrap();
        let event: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), event["type"].as_str());
        event
    };
    stream.strip_suffix("\n\n").unwrap().split("\n\n").map(event).collect()
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

fn call(id: &str, name: &str, arguments: &str) -> v1::ToolCall {
    v1::ToolCall { id: id.to_owned(), name: name.to_owned(), arguments: arguments.to_owned() }
}

fn begin(id: &str, name: &str) -> Part {
    Part::Begin(v1::ToolCallBegin { id: id.to_owned(), name: name.to_owned() })
}

#[tokio::test]
async fn a_whole_response_has_the_fields_of_openais() {
    let reasoned = v1::Output { reasoning: "Hm.".to_owned(), ..output("Hello") };
    let services = Scripted::new().0.plays([step_finished(), completed(reasoned)]);
    let response =
        post(&services, &json!({"model": "helper", "input": "Hi", "metadata": {"a": "b"}, "store": true})).await;
    let expected = json!({
        "id": format!("resp_{TASK_ID}"),
        "object": "response",
        "created_at": CREATED_SECS,
        "status": "completed",
        "background": false,
        "error": null,
        "incomplete_details": null,
        "model": "helper",
        "output": [
            {"id": format!("rs_{TASK_ID}_0"), "type": "reasoning", "status": "completed",
                "summary": [{"type": "summary_text", "text": "Hm."}]},
            {"id": format!("msg_{TASK_ID}_0"), "type": "message", "status": "completed", "role": "assistant",
                "content": [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}]},
        ],
        "previous_response_id": null,
        "store": false,
        "usage": {
            "input_tokens": 20, "input_tokens_details": {"cached_tokens": 16, "cache_write_tokens": 0}, "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 27,
        },
        "artel": {"task": TASK_ID, "not_taken": []},
        "instructions": null,
        "max_output_tokens": null,
        "max_tool_calls": null,
        "metadata": {"a": "b"},
        "parallel_tool_calls": true,
        "prompt_cache_key": null,
        "reasoning": {"effort": null, "summary": null},
        "safety_identifier": null,
        "service_tier": "default",
        "temperature": null,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": null,
        "truncation": "disabled",
        "user": null,
    });
    assert_eq!((response.status.as_u16(), response.json()), (200, expected));
    assert_eq!((response.header("x-artel-task"), response.header("x-artel-not-taken")), (TASK_ID, ""));
    assert_eq!(services.submit().labels["a"], "b");
}

#[tokio::test]
async fn a_stream_has_the_whole_sequence_of_events() {
    let plays = [
        thought(0, "Hm."),
        token("s1", "answer", 0, "He"),
        token("s1", "answer", 2, "llo"),
        step_finished(),
        completed(v1::Output { reasoning: "Hm.".to_owned(), ..output("Hello") }),
    ];
    let services = Scripted::new().0.plays(plays);
    let response = post(&services, &json!({"model": "helper", "input": "Hi", "stream": true})).await;
    assert_eq!(response.header("content-type"), "text/event-stream");
    assert_eq!(response.header("x-artel-task"), TASK_ID);
    let events = events(&response.text);
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(types(&events), expected, "and no `[DONE]`");
    let numbers: Vec<u64> = events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..16).collect::<Vec<u64>>());
    assert_eq!(events[0]["response"]["status"], "in_progress");
    assert_eq!(
        (&events[10]["delta"], &events[11]["delta"], &events[12]["text"]),
        (&json!("He"), &json!("llo"), &json!("Hello"))
    );
    let whole = Scripted::new()
        .0
        .plays([step_finished(), completed(v1::Output { reasoning: "Hm.".to_owned(), ..output("Hello") })]);
    let whole = post(&whole, &json!({"model": "helper", "input": "Hi"})).await.json();
    assert_eq!(events[15]["response"], whole, "both ways end with the same response");
}

#[tokio::test]
async fn calls_are_items_and_their_results_are_messages() {
    let calls = vec![call("c1", "add", "{\"a\":1}"), call("c2", "now", "{}")];
    let plays = [
        call_part(0, begin("c1", "add")),
        call_part(0, Part::Arguments("{\"a\"".to_owned())),
        call_part(0, Part::Arguments(":1}".to_owned())),
        call_part(0, Part::End(v1::ToolCallEnd {})),
        call_part(1, begin("c2", "now")),
        call_part(1, Part::Arguments("{}".to_owned())),
        call_part(1, Part::End(v1::ToolCallEnd {})),
        completed(v1::Output { calls, finish: Some(v1::FinishReason::Calls.into()), ..output("") }),
    ];
    let services = Scripted::new().0.plays(plays);
    let tools = json!([{"type": "function", "name": "add", "parameters": {"type": "object"}}, {"type": "function", "name": "now"}]);
    let input = json!([
        {"role": "user", "content": [{"type": "input_text", "text": "1+1, and now?"}]},
        {"type": "function_call", "id": "fc_0", "call_id": "call_of_another_program", "name": "now", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_of_another_program", "output": "12:00"},
    ]);
    let body = json!({
        "model": "helper", "input": input, "instructions": "Be brief.", "tools": tools, "tool_choice": "required",
        "parallel_tool_calls": true, "stream": true,
    });
    let events = events(&post(&services, &body).await.text);
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(types(&events), expected);
    let item = |number: usize, id: &str, name: &str, arguments: &str| {
        let id_of_item = format!("fc_{TASK_ID}_{number}");
        json!({"id": id_of_item, "type": "function_call", "status": "completed", "call_id": id, "name": name, "arguments": arguments})
    };
    let items = json!([item(0, "c1", "add", "{\"a\":1}"), item(1, "c2", "now", "{}")]);
    assert_eq!((&events[11]["response"]["output"], &events[11]["response"]["tools"]), (&items, &tools));
    let submit = services.submit();
    let seen: Vec<_> = submit.messages.iter().map(|m| (m.role(), m.text.as_str(), m.calls.len())).collect();
    let messages = [
        (ChatRole::System, "Be brief.", 0),
        (ChatRole::User, "1+1, and now?", 0),
        (ChatRole::Assistant, "", 1),
        (ChatRole::Tool, "12:00", 0),
    ];
    assert_eq!(seen, messages);
    assert_eq!(submit.messages[3].call_id, "call_of_another_program");
    assert_eq!(submit.tool_choice.unwrap().mode(), v1::ToolChoiceMode::Required);
    assert_eq!((submit.tools.len(), submit.input.as_str()), (2, ""));
}

#[tokio::test]
async fn what_the_role_does_not_take_is_told() {
    let services = Scripted::new().0.plays([completed_text("a")]);
    let body =
        json!({"model": "strict", "input": "Hi", "temperature": 1, "max_output_tokens": 9, "truncation": "auto"});
    let response = post(&services, &body).await;
    assert_eq!(response.header("x-artel-not-taken"), "temperature, truncation");
    assert_eq!(response.json()["artel"]["not_taken"], json!(["temperature", "truncation"]));
    let sampling = services.submit().sampling.unwrap();
    assert_eq!((sampling.temperature, sampling.max_tokens), (None, Some(9)));
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_incomplete() {
    let cut = v1::Output { finish: Some(v1::FinishReason::Length.into()), ..output("Hel") };
    let services = Scripted::new().0.plays([completed(cut.clone())]).plays([completed(cut)]);
    let whole = post(&services, &json!({"model": "helper", "input": "Hi"})).await.json();
    assert_eq!(
        (&whole["status"], &whole["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    let stream = post(&services, &json!({"model": "helper", "input": "Hi", "stream": true})).await.text;
    assert_eq!(types(&events(&stream)).pop(), Some("response.incomplete"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_repeats_that_it_is_in_progress() {
    let (sender, play) = live();
    let services = Scripted::new().0.plays([play]);
    let begun = Instant::now();
    let response =
        services.post("/v1/responses", &[], &json!({"model": "helper", "input": "Hi", "stream": true})).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(1), "the head waits for an early failure");
    let mut body = response.into_body();
    let mut read = async || {
        let frame = body.frame().await.unwrap().unwrap();
        events(std::str::from_utf8(frame.data_ref().unwrap()).unwrap())
    };
    assert_eq!(types(&read().await), ["response.created", "response.in_progress"]);
    for number in [2, 3] {
        let silent_since = Instant::now();
        let signs_of_life = read().await;
        assert_eq!(types(&signs_of_life), ["response.in_progress"]);
        assert_eq!(signs_of_life[0]["sequence_number"], number);
        assert_eq!(silent_since.elapsed(), Duration::from_secs(10));
    }
    let Play::Event(end) = completed_text("Hello") else { unreachable!() };
    sender.send(end).unwrap();
    assert_eq!(types(&read().await)[0], "response.output_item.added");
    assert_eq!(types(&read().await).pop(), Some("response.completed"));
}

#[tokio::test]
async fn a_failure_has_its_status_before_the_stream_and_its_events_within() {
    let full = || failed(FailureCode::QueueFull, "the queue of role helper is full");
    let too_long = || failed(FailureCode::ContextOverflow, "the prompt has 9000 tokens");
    let services =
        Scripted::new().0.plays([full()]).plays([too_long()]).plays([token("s1", "answer", 0, "Hel"), too_long()]);
    let streamed = json!({"model": "helper", "input": "Hi", "stream": true});
    let early = post(&services, &streamed).await;
    assert_eq!((early.status.as_u16(), early.header("retry-after")), (429, "2"));
    let whole = post(&services, &json!({"model": "helper", "input": "Hi"})).await;
    let error = &whole.json()["error"];
    assert_eq!(
        (whole.status.as_u16(), &error["code"], &error["param"]),
        (400, &json!("context_length_exceeded"), &json!("input"))
    );
    let within = post(&services, &streamed).await;
    let events = events(&within.text);
    assert_eq!(within.status.as_u16(), 200);
    assert_eq!(types(&events)[events.len() - 2..], ["error", "response.failed"]);
    let (error, last) = (&events[events.len() - 2], &events[events.len() - 1]["response"]);
    assert_eq!(
        (&error["error"]["code"], &error["error"]["param"]),
        (&json!("context_length_exceeded"), &json!("input"))
    );
    assert_eq!((&last["status"], &last["error"]["code"]), (&json!("failed"), &json!("context_length_exceeded")));
    assert_eq!(last["output"][0]["content"][0]["text"], "Hel");
}

#[tokio::test]
async fn an_item_of_an_earlier_response_is_read_from_its_task() {
    let earlier = |id: &str, result| v1::Task { id: id.to_owned(), result, ..v1::Task::default() };
    let result = v1::Output { calls: vec![call("c1", "add", "{}")], ..output("Let me see.") };
    let erased = v1::Task { erase_time: Some(Timestamp::default()), ..earlier("t-3", Some(output(""))) };
    let services = Scripted::new().0.keeps(earlier("t-1", Some(result))).keeps(earlier("t-2", None)).keeps(erased);
    let services = services.plays([completed_text("a")]);
    let refer = |id: &str| json!({"type": "item_reference", "id": id});
    let input = json!([
        {"role": "user", "content": "1+1?"},
        refer("rs_t-1_0"),
        refer("msg_t-1_0"),
        refer("fc_t-1_0"),
        {"type": "function_call_output", "call_id": "c1", "output": "2"},
    ]);
    assert_eq!(post(&services, &json!({"model": "helper", "input": input})).await.status.as_u16(), 200);
    let messages = services.submit().messages;
    assert_eq!((messages.len(), messages[1].text.as_str()), (3, "Let me see."));
    assert_eq!(messages[1].calls, [call("c1", "add", "{}")]);
    for (id, why) in [
        ("msg_t-9_0", "whose response is not retained"),
        ("msg_t-2_0", "whose response was not completed"),
        ("msg_t-3_0", "whose response was erased"),
        ("fc_t-1_5", "whose response has no such call"),
        ("msg_67ccd2bed1ec", "no id of an item"),
    ] {
        let input = json!([{"role": "user", "content": "1+1?"}, refer(id)]);
        let refused = post(&services, &json!({"model": "helper", "input": input})).await;
        let error = &refused.json()["error"];
        assert_eq!((refused.status.as_u16(), &error["param"]), (400, &json!("input[1].id")));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(why) && message.ends_with("send the item itself"), "{message}");
    }
}

#[tokio::test]
async fn earlier_responses_beyond_the_limit_of_a_conversation_are_refused() {
    let mut services = Scripted::new().0;
    for number in 0..3 {
        let result = Some(v1::Output { calls: vec![call("c", "f", "{}")], ..output(&"x".repeat(400 * 1024)) });
        services = services.keeps(v1::Task { id: format!("t-{number}"), result, ..v1::Task::default() });
    }
    // The same text counts as often as it is referred to, and a text that is not referred to is kept with its call.
    for ids in [["msg_t-0_0", "msg_t-1_0", "msg_t-2_0"], ["msg_t-0_0"; 3], ["fc_t-0_0", "fc_t-1_0", "fc_t-2_0"]] {
        let input = ids.map(|id| json!({"type": "item_reference", "id": id}));
        let error = post(&services, &json!({"model": "helper", "input": input})).await.json()["error"].clone();
        assert!(error["message"].as_str().unwrap().contains("the limit is 1048576"), "{ids:?}: {error}");
    }
}

#[tokio::test]
async fn likelihoods_are_told_with_the_text() {
    let likelihood = v1::TokenLogprob {
        bytes: b"Hello".to_vec(),
        logprob: -0.5,
        forced: false,
        top: vec![v1::TopLogprob { bytes: b"Hi".to_vec(), logprob: -1.5 }],
    };
    let logprobs = Some(v1::Logprobs { tokens: vec![likelihood], truncated: false });
    let services = Scripted::new().0.plays([completed(v1::Output { logprobs, ..output("Hello") })]);
    let body =
        json!({"model": "helper", "input": "Hi", "top_logprobs": 1, "include": ["message.output_text.logprobs"]});
    let response = post(&services, &body).await.json();
    let expected = json!([{
        "token": "Hello", "logprob": -0.5, "bytes": [72, 101, 108, 108, 111],
        "top_logprobs": [{"token": "Hi", "logprob": -1.5, "bytes": [72, 105]}],
    }]);
    assert_eq!(response["output"][0]["content"][0]["logprobs"], expected);
    assert_eq!(services.submit().sampling.unwrap().logprobs, Some(1));
}

#[tokio::test]
async fn steps_of_a_graph_are_comments_or_reasoning() {
    let step = || {
        let (step_id, node, role) = ("s0".to_owned(), "plan".to_owned(), "planner".to_owned());
        Play::Event(K::StepStarted(v1::StepStarted { step_id, node, role, visit: 1, attempt: 1, item: None }))
    };
    let services = Scripted::new().0.plays([step(), completed_text("a")]).plays([step(), completed_text("a")]);
    let body = json!({"model": "team", "input": "Hi", "stream": true});
    let commented = services.post("/v1/responses", &[("x-artel-events", "true")], &body).await;
    let commented = ReadResponse::of(commented).await;
    assert!(commented.comments().iter().any(|comment| comment.contains("plan")), "{}", commented.text);
    let reasoned = services.post("/v1/responses", &[("x-artel-events", "reasoning")], &body).await;
    let events = events(&ReadResponse::of(reasoned).await.text);
    let last = &events.last().unwrap()["response"]["output"];
    assert!(last[0]["summary"][0]["text"].as_str().unwrap().contains("plan"), "{last}");
    assert_eq!(last[1]["content"][0]["text"], "a");
}

#[tokio::test]
async fn a_very_long_text_comes_whole_in_one_line() {
    let text = "x".repeat(1024 * 1024);
    let services = Scripted::new().0.plays([token("s1", "answer", 0, &text), completed_text(&text)]);
    let stream = post(&services, &json!({"model": "helper", "input": "Hi", "stream": true})).await.text;
    let events = events(&stream);
    assert_eq!(events[4]["delta"].as_str().map(str::len), Some(text.len()));
    assert_eq!(events.last().unwrap()["response"]["output"][0]["content"][0]["text"], text.as_str());
}

#[tokio::test]
async fn what_this_endpoint_does_not_do_is_refused_in_words() {
    let services = Scripted::new().0;
    for (field, value, status, told) in [
        ("model", json!("e5"), 400, "call `/v1/embeddings`"),
        ("model", json!("gpt"), 404, "does not exist"),
        ("previous_response_id", json!("resp_1"), 400, "send the whole conversation in `input`"),
        ("input", json!([{"role": "user", "content": [{"type": "input_image"}]}]), 400, "read text alone"),
        ("tools", json!([{"type": "file_search"}]), 400, "only tools of type `function`"),
    ] {
        let mut body = json!({"model": "helper", "input": "Hi"});
        body[field] = value;
        let response = post(&services, &body).await;
        let error = &response.json()["error"];
        assert_eq!(response.status.as_u16(), status, "{error}");
        assert!(error["message"].as_str().unwrap().contains(told), "{error}");
    }
    assert!(services.runs().is_empty());
}

//! `/v1/completions` and `/v1/models`.

use std::time::Duration;

use artel_proto::v1;
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::ServiceExt as _;

use super::scripted::{
    CREATED_SECS, ReadResponse, Scripted, TASK_ID, completed, completed_text, failed, live, output, step_finished,
    token, usage_json,
};

const PATH: &str = "/v1/completions";

async fn read(path: &str) -> ReadResponse {
    let (services, _signals) = Scripted::new();
    let request = Request::get(path).body(Body::empty()).unwrap();
    ReadResponse::of(services.router().oneshot(request).await.unwrap()).await
}

async fn refused(more: Value) -> Value {
    let (services, _signals) = Scripted::new();
    let mut body = json!({"model": "helper", "prompt": "hello"});
    let Value::Object(more) = more else { panic!("{more}") };
    more.into_iter().for_each(|(name, value)| body[name] = value);
    let response = ReadResponse::of(services.post(PATH, &[], &body).await).await;
    assert_eq!(response.status, 400, "{}", response.text);
    response.json()["error"].clone()
}

#[tokio::test]
async fn a_prompt_is_the_input_of_a_task() {
    let (services, _signals) = Scripted::new();
    let services = services.plays([step_finished(), completed_text("hi")]);
    let body =
        json!({"model": "helper", "prompt": "hello", "max_tokens": 9, "best_of": 1, "echo": false, "suffix": ""});
    let response = ReadResponse::of(services.post(PATH, &[], &body).await).await;
    let submit = services.submit();
    assert_eq!((submit.input.as_str(), submit.sampling.unwrap().max_tokens), ("hello", Some(9)));
    let expected = json!({
        "id": format!("cmpl-{TASK_ID}"),
        "object": "text_completion",
        "created": CREATED_SECS,
        "model": "helper",
        "system_fingerprint": "fp_abcdef0123",
        "choices": [{"index": 0, "text": "hi", "logprobs": null, "finish_reason": "stop"}],
        "usage": usage_json(),
        "artel": {"task": TASK_ID, "not_taken": []},
    });
    assert_eq!(response.json(), expected);
}

#[tokio::test]
async fn several_prompts_are_several_tasks_with_keys_of_their_own() {
    let (services, _signals) = Scripted::new();
    let two = v1::Output { alternatives: vec![output("b")], ..output("a") };
    let services = services.plays([completed(two.clone())]).plays([step_finished(), completed(two)]);
    let body = json!({"model": "helper", "prompt": ["x", "y"], "n": 2});
    let response = ReadResponse::of(services.post(PATH, &[("idempotency-key", "k")], &body).await).await;
    let runs = services.runs();
    let told: Vec<(&str, &str)> =
        runs.iter().map(|run| (run.submit.input.as_str(), run.submit.request_id.as_str())).collect();
    assert_eq!(told, [("x", "k/0"), ("y", "k/1")]);
    let page = response.json();
    let choices: Vec<(u64, &str)> = page["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| (choice["index"].as_u64().unwrap(), choice["text"].as_str().unwrap()))
        .collect();
    assert_eq!(choices, [(0, "a"), (1, "b"), (2, "a"), (3, "b")]);
    assert_eq!(page["usage"]["total_tokens"], 27);
    assert_eq!(response.header("x-artel-task"), format!("{TASK_ID}, {TASK_ID}"));
}

#[tokio::test]
async fn the_streams_of_several_prompts_are_one() {
    let (services, _signals) = Scripted::new();
    let two = v1::Output { alternatives: vec![output("c")], ..output("ab") };
    let services = services
        .plays([token("s1", "answer", 0, "a"), token("s1", "answer", 1, "b"), completed(two.clone())])
        .plays([completed(two)]);
    let body = json!({"model": "helper", "prompt": ["x", "y"], "n": 2, "stream": true,
        "stream_options": {"include_usage": true}});
    let chunks = ReadResponse::of(services.post(PATH, &[], &body).await).await.chunks();
    let mut texts = [const { String::new() }; 4];
    let mut ends = Vec::new();
    for choice in chunks.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
        texts[index] += choice["text"].as_str().unwrap();
        if choice["finish_reason"] == "stop" {
            ends.push(index);
        }
    }
    ends.sort_unstable();
    assert_eq!((texts, ends), (["ab", "c", "ab", "c"].map(str::to_owned), vec![0, 1, 2, 3]));
    let last = chunks.last().unwrap();
    assert!(last["choices"] == json!([]) && last["usage"].is_object(), "{last}");
}

#[tokio::test]
async fn an_error_of_one_prompt_ends_the_stream() {
    let (services, _signals) = Scripted::new();
    let gone = failed(v1::FailureCode::ModelUnavailable, "gone");
    let services = services.plays([token("s1", "answer", 0, "a"), gone]);
    let body = json!({"model": "helper", "prompt": "x", "stream": true});
    let chunks = ReadResponse::of(services.post(PATH, &[], &body).await).await.chunks();
    assert_eq!(chunks.last().unwrap()["error"]["code"], "model_unavailable");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_one_prompt_drops_the_others() {
    let (services, mut signals) = Scripted::new();
    let gone = failed(v1::FailureCode::ModelUnavailable, "gone");
    let (_sender, play) = live();
    let services = services.plays([token("s1", "answer", 0, "a"), gone]).plays([token("s1", "answer", 0, "b"), play]);
    let body = json!({"model": "helper", "prompt": ["x", "y"], "stream": true});
    let response = services.post(PATH, &[], &body).await;
    let response = timeout(Duration::from_secs(600), ReadResponse::of(response)).await.unwrap();
    assert_eq!(response.chunks().last().unwrap()["error"]["code"], "model_unavailable");
    for _ in 0..2 {
        signals.dropped.recv().await.unwrap();
    }
}

#[tokio::test]
async fn likelihoods_have_their_older_form() {
    let top = vec![v1::TopLogprob { bytes: b"h".to_vec(), logprob: -0.5 }];
    let token = |text: &str| {
        let (bytes, top) = (text.as_bytes().to_vec(), top.clone());
        v1::TokenLogprob { bytes, logprob: -0.5, forced: false, top }
    };
    let logprobs = Some(v1::Logprobs { tokens: vec![token("hé"), token("y")], truncated: false });
    let (services, _signals) = Scripted::new();
    let services = services.plays([completed(v1::Output { logprobs, ..output("héy") })]);
    let body = json!({"model": "helper", "prompt": "x", "logprobs": 1});
    let page = ReadResponse::of(services.post(PATH, &[], &body).await).await.json();
    let expected = json!({"text_offset": [0, 2], "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"h": -0.5}, {"h": -0.5}], "tokens": ["hé", "y"]});
    assert_eq!(page["choices"][0]["logprobs"], expected);
    assert_eq!(services.submit().sampling.unwrap().logprobs, Some(1));
}

#[tokio::test]
async fn what_is_not_taken_is_refused_in_words() {
    for (more, param, told) in [
        (json!({"echo": true}), "echo", "does not repeat its prompt"),
        (json!({"suffix": "end"}), "suffix", "does not fill a gap"),
        (json!({"best_of": 2}), "best_of", "is above `n`"),
        (json!({"prompt": [1, 2]}), "prompt", "is a list of token ids"),
        (json!({"prompt": [[1], [2]]}), "prompt", "is a list of token ids"),
        (json!({"prompt": []}), "prompt", "has 0 texts, and must have 1 to 16"),
        (json!({"prompt": vec!["a"; 17]}), "prompt", "has 17 texts"),
        (json!({"prompt": null}), "prompt", "is missing"),
        (json!({"prompt": {}}), "prompt", "must be a list"),
        (json!({"model": "e5"}), "model", "names an embedding model"),
    ] {
        let error = refused(more).await;
        assert_eq!(error["param"], param);
        assert!(error["message"].as_str().unwrap().contains(told), "{error}");
    }
}

#[tokio::test]
async fn what_answers_is_listed() {
    let page = read("/v1/models").await.json();
    assert_eq!(page["object"], "list");
    let ids: Vec<&str> = page["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["auto", "team", "helper", "graph:helper", "strict", "model:helper", "model:team", "e5", "ranker"]);
    let expected = json!({"id": "helper", "object": "model", "created": CREATED_SECS, "owned_by": "artel", "kind": "role",
        "description": "what helper is for", "max_model_len": 8192, "meta": {"n_ctx": 8192}});
    assert_eq!(read("/v1/models/helper").await.json(), expected);
    let auto = read("/v1/models/auto").await.json();
    assert_eq!((&auto["kind"], auto.get("max_model_len")), (&json!("auto"), None));
    assert_eq!(read("/v1/models/e5").await.json()["kind"], "embedding");
    let missing = read("/v1/models/nothing").await;
    assert_eq!((missing.status.as_u16(), &missing.json()["error"]["code"]), (404, &json!("model_not_found")));
}

//! What of a chat completion's request is taken, refused in words, or ignored.

use artel_proto::v1;
use artel_proto::v1::response_format::{Format, Kind};
use artel_proto::v1::submit_request::Target;
use serde_json::{Value, json};

use super::scripted::{ReadResponse, Scripted, TestCaller, completed_text, refusal};

const PATH: &str = "/v1/chat/completions";

/// A request to `helper` with these fields more.
fn request(more: Value) -> Value {
    let mut body = json!({"model": "helper", "messages": [{"role": "user", "content": "hello"}]});
    let Value::Object(more) = more else { panic!("{more}") };
    more.into_iter().for_each(|(name, value)| body[name] = value);
    body
}

/// The answer to it, and what was submitted.
async fn taken(more: Value) -> (ReadResponse, v1::SubmitRequest) {
    let (services, _signals) = Scripted::new();
    let services = services.plays([completed_text("hi")]);
    let response = ReadResponse::of(services.post(PATH, &[], &request(more)).await).await;
    assert_eq!(response.status, 200, "{}", response.text);
    let submit = services.submit();
    (response, submit)
}

/// The error of it, where nothing is submitted.
async fn refused(body: Value) -> (u16, Value) {
    let (services, _signals) = Scripted::new();
    let response = ReadResponse::of(services.post(PATH, &[], &body).await).await;
    assert!(services.runs().is_empty());
    (response.status.as_u16(), response.json()["error"].clone())
}

#[tokio::test]
async fn a_conversation_is_a_task_of_its_caller() {
    let (services, _signals) = Scripted::new();
    let services = services.plays([completed_text("hi")]);
    let messages = json!([{"role": "system", "content": "Be short."}, {"role": "user", "content": "hello"}]);
    let body = request(json!({"messages": messages, "metadata": {"team": "a"}}));
    ReadResponse::of(services.post(PATH, &[], &body).await).await;
    let run = services.runs().remove(0);
    assert_eq!((run.caller, run.cancel_on_disconnect), (Some(TestCaller("ada")), true));
    assert_eq!(run.submit.target, Some(Target::Role("helper".to_owned())));
    let texts: Vec<&str> = run.submit.messages.iter().map(|message| message.text.as_str()).collect();
    assert_eq!((texts, run.submit.input.as_str()), (vec!["Be short.", "hello"], ""));
    assert_eq!((run.submit.labels["team"].as_str(), run.submit.request_id.as_str()), ("a", ""));
    assert_eq!((run.submit.sampling, run.submit.response, run.submit.tool_choice), (None, None, None));
}

#[tokio::test]
async fn model_names_a_role_a_graph_or_the_default_graph() {
    for (model, target) in [
        ("auto", None),
        ("team", Some(Target::Graph("team".to_owned()))),
        ("helper", Some(Target::Role("helper".to_owned()))),
        ("graph:helper", Some(Target::Graph("helper".to_owned()))),
    ] {
        let (response, submit) = taken(json!({ "model": model })).await;
        assert_eq!((response.json()["model"].as_str(), submit.target), (Some(model), target));
    }
}

#[tokio::test]
async fn a_model_that_cannot_chat_is_refused_in_words() {
    for (model, status, code, told) in [
        (json!("nothing"), 404, "model_not_found", "the model `nothing` does not exist: `GET /v1/models`"),
        (json!("e5"), 400, "wrong_model", "names an embedding model: call `/v1/embeddings`"),
        (json!("ranker"), 400, "wrong_model", "names a model that reranks: call `/v1/rerank`"),
        (json!(null), 400, "invalid_value", "`model` is missing: name a role or a graph, or `auto`"),
        (json!(7), 400, "invalid_type", "`model` must be a text, and is a number"),
    ] {
        let (found, error) = refused(request(json!({ "model": model }))).await;
        assert_eq!((found, error["code"].as_str(), error["param"].as_str()), (status, Some(code), Some("model")));
        assert!(error["message"].as_str().unwrap().contains(told), "{error}");
    }
}

#[tokio::test]
async fn each_option_of_sampling_is_taken() {
    let sampling = |change: fn(&mut v1::SamplingOptions)| {
        let mut options = v1::SamplingOptions::default();
        change(&mut options);
        options
    };
    for (body, expected) in [
        (json!({"max_tokens": 9}), sampling(|s| s.max_tokens = Some(9))),
        (json!({"max_completion_tokens": 9}), sampling(|s| s.max_tokens = Some(9))),
        (json!({"temperature": 0}), sampling(|s| s.temperature = Some(0.0))),
        (json!({"top_p": 0.5}), sampling(|s| s.top_p = Some(0.5))),
        (json!({"n": 3}), sampling(|s| s.n = Some(3))),
        (json!({"stop": "a"}), sampling(|s| s.stop = vec!["a".to_owned()])),
        (json!({"stop": ["a", "b"]}), sampling(|s| s.stop = vec!["a".to_owned(), "b".to_owned()])),
        (json!({"seed": 42}), sampling(|s| s.seed = Some(42))),
        (json!({"presence_penalty": 1}), sampling(|s| s.presence_penalty = Some(1.0))),
        (json!({"frequency_penalty": -1}), sampling(|s| s.frequency_penalty = Some(-1.0))),
        (json!({"logit_bias": {"no": -5}}), sampling(|s| s.logit_bias = [("no".to_owned(), -5.0)].into())),
        (json!({"logprobs": true}), sampling(|s| s.logprobs = Some(0))),
        (json!({"logprobs": true, "top_logprobs": 3}), sampling(|s| s.logprobs = Some(3))),
        (json!({"top_k": 40}), sampling(|s| s.top_k = Some(40))),
        (json!({"min_p": 0.5}), sampling(|s| s.min_p = Some(0.5))),
        (json!({"typical_p": 0.5}), sampling(|s| s.typical_p = Some(0.5))),
        (json!({"repeat_penalty": 1.5}), sampling(|s| s.repeat_penalty = Some(1.5))),
        (json!({"repetition_penalty": 1.5}), sampling(|s| s.repeat_penalty = Some(1.5))),
    ] {
        let (response, submit) = taken(body.clone()).await;
        assert_eq!(submit.sampling, Some(expected), "{body}");
        assert_eq!(response.json()["artel"]["not_taken"], json!([]), "{body}");
    }
}

#[tokio::test]
async fn tools_and_forms_are_taken() {
    let tool = json!({"type": "function", "function": {"name": "get", "description": "d",
        "parameters": {"type": "object", "properties": {}}, "strict": true}});
    let (_, submit) = taken(json!({"tools": [tool], "tool_choice": "required", "parallel_tool_calls": false})).await;
    assert_eq!((submit.tools[0].name.as_str(), submit.tools[0].description.as_str()), ("get", "d"));
    assert_eq!(submit.tools[0].parameters, r#"{"type":"object","properties":{}}"#);
    let choice = submit.tool_choice.unwrap();
    assert_eq!((choice.mode(), choice.single), (v1::ToolChoiceMode::Required, true));
    let (_, submit) = taken(json!({"response_format": {"type": "json_object"}})).await;
    assert_eq!(submit.response.unwrap().format, Some(Format::Kind(Kind::JsonObject.into())));
    let (_, submit) = taken(json!({"reasoning_effort": "none"})).await;
    assert_eq!(submit.reasoning.unwrap().enabled, Some(false));
    let (_, submit) = taken(json!({"chat_template_kwargs": {"enable_thinking": false}})).await;
    assert_eq!(submit.reasoning.unwrap().enabled, Some(false));
}

#[tokio::test]
async fn what_openai_ignores_or_does_not_know_is_ignored() {
    for more in [
        json!({"user": "u", "store": true, "service_tier": "auto", "prediction": null, "verbosity": "low"}),
        json!({"a_field_of_tomorrow": {"deep": [1, 2]}, "safety_identifier": "s", "prompt_cache_key": "k"}),
        json!({"temperature": null, "stop": null, "tools": null, "tool_choice": null, "response_format": null,
            "max_tokens": null, "n": null, "metadata": null, "stream": null, "stream_options": null, "logprobs": null}),
        json!({"tools": [], "functions": [], "modalities": ["text"], "n": 1, "logprobs": false, "top_logprobs": 0}),
    ] {
        let (response, submit) = taken(more).await;
        assert_eq!(submit.sampling, None);
        assert_eq!((submit.tools.len(), submit.response, submit.reasoning), (0, None, None));
        assert_eq!(response.json()["artel"]["not_taken"], json!([]));
    }
}

#[tokio::test]
async fn what_would_change_the_answer_is_refused_in_words() {
    for (more, param, told) in [
        (json!({"functions": [{"name": "f"}]}), "functions", "send `tools`"),
        (json!({"function_call": "auto"}), "function_call", "send `tool_choice`"),
        (json!({"audio": {"voice": "v"}}), "audio", "write text alone"),
        (json!({"modalities": ["text", "audio"]}), "modalities", "write text alone"),
        (json!({"web_search_options": {}}), "web_search_options", "this daemon searches nothing"),
        (json!({"logit_bias": {"50256": 1}}), "logit_bias.50256", "is the id of a token"),
        (json!({"top_logprobs": 2}), "top_logprobs", "needs `logprobs: true`"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type", "only tools of type `function`"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),
            "messages[0].content[0].type",
            "is an image",
        ),
        (json!({"messages": null}), "messages", "is missing"),
    ] {
        let (status, error) = refused(request(more)).await;
        assert_eq!(
            (status, error["param"].as_str(), error["type"].as_str()),
            (400, Some(param), Some("invalid_request_error"))
        );
        assert!(error["message"].as_str().unwrap().contains(told), "{error}");
    }
}

#[tokio::test]
async fn a_field_of_a_wrong_type_is_named() {
    for (more, param) in [
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"max_tokens": 1.5}), "max_tokens"),
        (json!({"stop": 3}), "stop"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stream_options": true}), "stream_options"),
        (json!({"tools": {}}), "tools"),
        (json!({"metadata": {"a": 1}}), "metadata.a"),
        (json!({"response_format": "json"}), "response_format"),
        (json!({"seed": "x"}), "seed"),
        (json!({"logprobs": 5}), "logprobs"),
        (json!({"logit_bias": []}), "logit_bias"),
        (json!({"reasoning_effort": 3}), "reasoning_effort"),
        (json!({"parallel_tool_calls": 0}), "parallel_tool_calls"),
    ] {
        let (status, error) = refused(request(more)).await;
        assert_eq!((status, error["param"].as_str(), error["code"].as_str()), (400, Some(param), Some("invalid_type")));
    }
}

#[tokio::test]
async fn what_a_role_fixes_is_told_and_not_taken() {
    let more =
        json!({"model": "strict", "temperature": 0.5, "max_tokens": 4000, "seed": 1, "reasoning_effort": "high"});
    let (response, submit) = taken(more).await;
    assert_eq!(submit.sampling, Some(v1::SamplingOptions { seed: Some(1), ..v1::SamplingOptions::default() }));
    assert_eq!(response.header("x-artel-not-taken"), "max_tokens, temperature, reasoning_effort");
    assert_eq!(response.json()["artel"]["not_taken"], json!(["max_tokens", "temperature", "reasoning_effort"]));
    let (response, submit) = taken(json!({"model": "team", "temperature": 0.5, "n": 2, "logprobs": true})).await;
    assert_eq!((submit.sampling, response.header("x-artel-not-taken")), (None, "n, logprobs, temperature"));
}

#[tokio::test]
async fn the_service_names_fields_as_the_client_did() {
    let messages = json!([{"role": "system", "content": ""}, {"role": "user", "content": ""}]);
    for (more, field, param) in [
        (json!({"max_completion_tokens": 0}), "submit.sampling.max_tokens", "max_completion_tokens"),
        (json!({"max_tokens": 0}), "submit.sampling.max_tokens", "max_tokens"),
        (json!({ "messages": messages }), "submit.messages[0].text", "messages[1].content"),
        (json!({}), "submit.messages", "messages"),
    ] {
        let (services, _signals) = Scripted::new();
        let services = services.refuses(refusal(tonic::Code::InvalidArgument, "BAD_REQUEST", |details| {
            details.add_bad_request_violation(field, "is wrong");
        }));
        let response = ReadResponse::of(services.post(PATH, &[], &request(more)).await).await;
        let error = &response.json()["error"];
        assert_eq!((response.status.as_u16(), error["param"].as_str()), (400, Some(param)));
        assert_eq!(error["message"], format!("`{param}`: is wrong"));
    }
}

#[tokio::test]
async fn what_is_no_json_object_is_refused() {
    let (services, _signals) = Scripted::new();
    let (_, error) = refused(json!([1])).await;
    assert_eq!(error["message"], "the body must be a JSON object");
    use tower::ServiceExt as _;
    let request = axum::http::Request::post(PATH).body(axum::body::Body::from("{\"model\": ")).unwrap();
    let response = ReadResponse::of(services.router().oneshot(request).await.unwrap()).await;
    assert_eq!((response.status.as_u16(), response.json()["error"]["code"].as_str()), (400, Some("invalid_json")));
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(200), "]".repeat(200));
    let request = axum::http::Request::post(PATH).body(axum::body::Body::from(deep)).unwrap();
    let response = ReadResponse::of(services.router().oneshot(request).await.unwrap()).await;
    assert!(response.json()["error"]["message"].as_str().unwrap().contains("recursion limit"), "{}", response.text);
}

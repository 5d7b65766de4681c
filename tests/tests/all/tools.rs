//! Tools of callers, and the calls of a role.

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_proto::v1::tool_call_delta::Part;
use artel_tests::scripted::{SCRIPTED_CATALOG, model_script, scripted_daemon};
use artel_tests::{daemon, task_request};
use serde_json::{Value, json};

const WEATHER: (&str, &str) = (
    "get_weather",
    r#"{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": false}"#,
);

/// Parameters that no object satisfies.
const EMPTY: &str =
    r#"{"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 2, "maximum": 1}}}"#;

/// What a scripted writer repeats between `<` and `>` is a call.
fn call(name: &str, arguments: &Value) -> String {
    format!("tool_call>{{\"name\": \"{name}\", \"arguments\": {arguments}}}</tool_call")
}

fn output(task: &v1::Task) -> v1::Output {
    task.result.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_answers_with_calls_of_its_callers_tools() {
    let daemon = scripted_daemon().start().await;
    let arguments = json!({"city": "Köln"});
    let request = task_request(&call("get_weather", &arguments)).with_role("writer");
    let mut run = daemon.run(request.with_tools(&[WEATHER], v1::ToolChoiceMode::Auto)).await;
    run.end().await;
    let result = output(&daemon.task(&run.id).await);
    assert_eq!((result.text.as_str(), result.finish(), result.calls.len()), ("", v1::FinishReason::Calls, 1));
    let called = &result.calls[0];
    assert_eq!((called.name.as_str(), called.id.len()), ("get_weather", 9));
    assert_eq!(serde_json::from_str::<Value>(&called.arguments).unwrap(), arguments);
    let parts = run.events.iter().filter_map(|event| match &event.kind {
        Some(Kind::ToolCallDelta(delta)) => delta.part.clone(),
        _ => None,
    });
    let (mut begun, mut streamed, mut ends) = (Vec::new(), String::new(), 0);
    for part in parts {
        match part {
            Part::Begin(begin) => begun.push((begin.id, begin.name)),
            Part::Arguments(text) => streamed.push_str(&text),
            Part::End(_) => ends += 1,
            Part::Withdrawn(_) => panic!("the call is one"),
        }
    }
    assert_eq!(begun, [(called.id.clone(), "get_weather".to_owned())]);
    assert_eq!((streamed.as_str(), ends), (called.arguments.as_str(), 1));
    let (code, out, err) = daemon.cli(["task", "show"]).arg(&run.id).run().await;
    assert!(code == 0 && out.contains("calls get_weather {\"city\":\"Köln\"}"), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_call_of_a_tool_stays_text() {
    let daemon = scripted_daemon().start().await;
    let (known, unknown) = (call("get_weather", &json!({"city": "K"})), call("other", &json!({})));
    let with_tools =
        |input: &str| task_request(input).with_role("writer").with_tools(&[WEATHER], v1::ToolChoiceMode::Auto);
    let none = |input: &str| task_request(input).with_role("writer").with_tools(&[WEATHER], v1::ToolChoiceMode::None);
    for (request, text) in [
        (task_request(&known).with_role("writer"), format!("<{known}>")),
        (none(&known), format!("<{known}>")),
        (with_tools(&unknown), format!("<{unknown}>")),
        (with_tools("tool_call>{\"name\": \"get_weather\""), "<tool_call>{\"name\": \"get_weather\">".to_owned()),
    ] {
        let mut run = daemon.run(request).await;
        assert_eq!(run.end().await.text(), text);
        let result = output(&daemon.task(&run.id).await);
        assert_eq!((result.calls.len(), result.finish()), (0, v1::FinishReason::Stop));
        let step = &daemon.task(&run.id).await.steps[0].id;
        assert_eq!(run.tokens(step), text, "the tokens are the text");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_for_a_role_that_takes_them() {
    let yaml = format!(
        "{SCRIPTED_CATALOG}---\nrole: closed\ndescription: Takes none.\nmodel: talk\nprompt: You write.\ncaller_tools: false\n"
    );
    let daemon = daemon().with_yaml(&yaml).with_failpoints(&model_script()).start().await;
    let of_graph = task_request("Hello").with_graph("line");
    let of_role = task_request("Hello").with_role("closed");
    let unnamed = task_request("Hello").with_role("writer");
    for (request, tool, told) in [
        (of_graph, WEATHER, "tools are for a single role"),
        (of_role, WEATHER, "its `caller_tools` is false"),
        (unnamed.clone(), ("no name", "{}"), "is no name of a tool"),
        (unnamed.clone(), ("a", "{"), "are no JSON"),
        (unnamed.clone(), ("a", "[]"), "no JSON schema of an object"),
        (unnamed, ("a", EMPTY), "tools[0].parameters: are those of `a`, which no model can be held to"),
    ] {
        let request = request.with_tools(&[tool], v1::ToolChoiceMode::Auto);
        let status = daemon.submit(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains(told), "{}", status.message());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_required_call_fails() {
    let daemon = scripted_daemon().start().await;
    let request = task_request("Hello").with_role("clown").with_tools(&[WEATHER], v1::ToolChoiceMode::Required);
    let mut run = daemon.run(request).await;
    let outcome = run.end().await;
    assert!(format!("{outcome:?}").contains("calls no tool, which is required"), "{outcome:?}");
}

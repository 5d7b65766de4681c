//! Values that clients would round, or could not decode, are refused where they arrive.

use std::time::Duration;

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_tests::scripted::SCRIPTED_CATALOG;
use artel_tests::{Cli, Daemon, TaskOutcome, daemon, task_request};
use prost_types::value::Kind as Json;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A command line that has not ended by now never does.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

const CATALOG: &str = "---
role: counter
description: Counts beyond 2^53.
model: talk
prompt: You count.
output: {type: object}
limits: {retries: 1}
---
role: physicist
description: Gives constants.
model: talk
prompt: You measure.
output: {type: object}
limits: {retries: 0}
---
role: nester
description: Nests deeper than clients read.
model: talk
prompt: You nest.
output: {type: object}
limits: {retries: 0}
---
role: shelf
description: Nests as deep as clients read.
model: talk
prompt: You shelve.
output: {type: object}
limits: {retries: 0}
---
graph: shelves
description: Nests an output once more.
start: each
result: each
nodes:
  each: {role: shelf, for_each: '[1, 2]', next: done}
---
graph: number
description: A person gives a value.
start: say
nodes:
  say: {ask: {message: Which number?, output: {type: object}, deadline: 1h}, next: done}
";

/// Lists nested so deep, as JSON.
fn lists(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

async fn started() -> Daemon {
    let script = json!({"replies": [
        {"when": ["You count."], "say": "{\"n\": [1, 9007199254740993]}"},
        {"when": ["You measure."], "say": "{\"exact\": 9007199254740991, \"double\": 1e22, \"id\": \"9007199254740993\"}"},
        {"when": ["You nest."], "say": format!("{{\"a\": {}}}", lists(60))},
        {"when": ["You shelve."], "say": format!("{{\"a\": {}}}", lists(29))},
        {"say": "<{last}>"},
    ]});
    daemon().with_yaml(&format!("{SCRIPTED_CATALOG}{CATALOG}")).with_failpoints(&script).start().await
}

/// The message of a task that failed with `OUTPUT_INVALID`.
fn invalid_output(outcome: TaskOutcome) -> String {
    match outcome {
        TaskOutcome::Failed(v1::FailureCode::OutputInvalid, message) => message,
        other => panic!("{other:?}"),
    }
}

/// Runs a command to its end.
async fn ended(cli: Cli) -> (i32, String, String) {
    tokio::time::timeout(COMMAND_TIMEOUT, cli.run()).await.expect("the command ends")
}

fn value(kind: Json) -> prost_types::Value {
    prost_types::Value { kind: Some(kind) }
}

/// An object with this value.
fn object(inner: prost_types::Value) -> prost_types::Value {
    value(Json::StructValue(prost_types::Struct { fields: [("n".to_owned(), inner)].into() }))
}

/// Lists nested so deep.
fn nested(depth: usize) -> prost_types::Value {
    let list = |inner| value(Json::ListValue(prost_types::ListValue { values: vec![inner] }));
    (0..depth).fold(value(Json::NullValue(0)), |inner, _| list(inner))
}

async fn answer(daemon: &Daemon, id: &str, given: prost_types::Value) -> Result<v1::Task, Status> {
    let answer = Some(v1::answer_request::Answer::Json(given));
    let request = v1::AnswerRequest { task_id: id.to_owned(), step_id: String::new(), answer };
    daemon.tasks().answer(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integer_of_a_model_that_clients_would_round_is_no_valid_output() {
    let daemon = started().await;
    let mut run = daemon.run(task_request("How many?").with_role("counter")).await;
    let message = invalid_output(run.end().await);
    assert!(message.contains("at /n/1: the integer 9007199254740993 exceeds ±9007199254740991"), "{message}");
    assert!(message.contains("write it as a string"), "{message}");
    let failed = run.events.iter().filter(|event| matches!(event.kind, Some(Kind::StepFailed(_)))).count();
    assert_eq!(failed, 2, "it is retried as every invalid output");

    let mut run = daemon.run(task_request("How many?").with_role("physicist")).await;
    run.end().await.text();
    let (code, out, err) = ended(daemon.cli(["task", "get", "--json"]).arg(&run.id)).await;
    assert_eq!(code, 0, "{err}");
    let task: Value = serde_json::from_str(&out).unwrap();
    let expected = json!({"exact": 9_007_199_254_740_991_i64, "double": 1e22, "id": "9007199254740993"});
    assert_eq!(task["result"]["json"], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_no_client_could_decode_ends_as_output_invalid() {
    let daemon = started().await;
    let mut run = daemon.run(task_request("Nest.").with_role("nester")).await;
    let message = invalid_output(run.end().await);
    assert!(message.contains("lists and objects nest 61 deep, the limit is 30"), "{message}");
    assert!(!daemon.run(task_request("Hello").with_graph("line")).await.end().await.text().is_empty());
    let (code, out, err) = ended(daemon.cli(["run", "--role", "nester", "Nest."])).await;
    assert_eq!((code, out.contains("nest 61 deep")), (1, true), "{out}{err}");

    // The deepest output is received; a list of such outputs nests once more.
    let (code, out, err) = ended(daemon.cli(["run", "--json", "--role", "shelf", "Shelve."])).await;
    assert_eq!((code, out.contains(&lists(29))), (0, true), "{out}{err}");
    let mut run = daemon.run(task_request("Shelve.").with_graph("shelves")).await;
    let message = invalid_output(run.end().await);
    assert!(message.contains("cannot be sent to clients: lists and objects nest 31 deep"), "{message}");
    let (code, out, err) = ended(daemon.cli(["task", "watch"]).arg(&run.id)).await;
    assert_eq!((code, out.contains("reconnecting")), (1, false), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_would_be_rounded_or_nests_too_deep_is_refused_and_may_be_given_again() {
    let daemon = started().await;
    let mut run = daemon.run(task_request("Ask.").with_graph("number")).await;
    run.until(|kind| matches!(kind, Kind::Waiting(_))).await;
    let (code, out, err) = ended(daemon.cli(["task", "get"]).arg(&run.id)).await;
    assert_eq!((code, out.contains("say waits for a person: Which number?")), (0, true), "{out}{err}");

    let command = async |json: &str| {
        let answer = daemon.cli(["task", "answer"]).arg(&run.id).arg("--value").arg(json);
        ended(answer).await
    };
    let deep = format!("{{\"n\": {}}}", lists(60));
    for (given, refusal) in [
        ("{\"n\": 9007199254740993}", "at /n: the integer 9007199254740993 exceeds ±9007199254740991"),
        ("{\"n\": 123456789012345678901}", "at /n: the integer 123456789012345678901 exceeds"),
        ("{\"n\": 1e400}", "number out of range"),
        (deep.as_str(), "nest 61 deep, the limit is 30"),
        // A double that the client may have rounded is refused by the daemon.
        ("{\"n\": 1e300}", "json: at /n: 1e300 may be a rounded integer"),
    ] {
        let (code, _, err) = command(given).await;
        assert_eq!((code, err.contains(refusal)), (2, true), "{given}: {err}");
    }

    let number = |number| object(value(Json::NumberValue(number)));
    for (given, refusal) in [
        (number(9_007_199_254_740_992.0), "json: at /n: 9007199254740992.0 may be a rounded integer"),
        (number(-1e19), "write it as a string"),
        (number(f64::INFINITY), "json: at /n: inf is not a JSON number"),
        (object(nested(30)), "json: lists and objects nest 31 deep, the limit is 30"),
        (object(nested(60)), "the request cannot be decoded: AnswerRequest.answer: recursion limit reached"),
    ] {
        let refused = answer(&daemon, &run.id, given).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert_eq!(refused.get_details_error_info().unwrap().reason, "BAD_REQUEST");
        assert!(refused.message().contains(refusal), "{refused}");
    }

    let (code, _, err) = command("{\"n\": [9007199254740991, \"9007199254740993\", 0.5]}").await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(run.end().await.text(), "{\"n\":[9007199254740991,\"9007199254740993\",0.5]}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_with_a_number_that_clients_would_round_is_refused_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let role = |output: &str| {
        format!("role: judge\ndescription: Judges.\nmodel: smollm2\nprompt: You judge.\noutput: {output}\n")
    };
    for (output, refusal) in [
        ("{enum: [1, 9007199254740993]}", "the integer 9007199254740993 exceeds ±9007199254740991"),
        ("{type: object, properties: {n: {const: -9007199254740993}}}", "the integer -9007199254740993 exceeds"),
        ("{enum: [123456789012345678901]}", "does not fit into 64 bits"),
        ("{type: object, properties: {n: {maximum: 1e400}}}", "inf is not a number of JSON"),
    ] {
        std::fs::write(dir.path().join("judge.yaml"), role(output)).unwrap();
        let (code, out, err) = ended(Cli::new(["check"]).arg(dir.path())).await;
        assert_eq!((code, out.contains(refusal) || err.contains(refusal)), (1, true), "{output}: {out}{err}");
    }
    std::fs::write(dir.path().join("judge.yaml"), role("{enum: [9007199254740991, '9007199254740993', 1e300]}"))
        .unwrap();
    let (code, out, err) = ended(Cli::new(["check"]).arg(dir.path())).await;
    assert_eq!(code, 0, "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_says_which_task_it_was_forked_from() {
    let daemon = started().await;
    let mut run = daemon.run(task_request("Which sail?").with_graph("line")).await;
    run.end().await.text();
    let (code, fork, err) = ended(daemon.cli(["task", "fork", "--from", "c"]).arg(&run.id)).await;
    assert_eq!(code, 0, "{err}");
    let (code, out, err) = ended(daemon.cli(["task", "watch"]).arg(fork.trim())).await;
    assert_eq!((code, out.contains(&format!("forked from {} at step c", run.id))), (0, true), "{out}{err}");
}

//! Messages that are larger than gRPC clients accept by default.

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_tests::scripted::{SCRIPTED_CATALOG, model_script};
use artel_tests::{Daemon, TaskOutcome, TaskStream, daemon, task_request};
use prost_types::value::Kind as Json;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const MIB_BYTES: usize = 1024 * 1024;

const ASKING_GRAPHS: &str = "---
graph: talk
description: Five people say much.
start: each
result: last
nodes:
  each: {ask: {message: 'Say {{ item }}.', deadline: 1h}, for_each: '[1, 2, 3, 4, 5]', next: last}
  last: {ask: {message: 'And now?', output: {enum: ['yes']}, deadline: 1h}, next: done}
---
graph: heap
description: Five people say much, and all of it is the result.
start: each
result: each
nodes:
  each: {ask: {message: 'Say {{ item }}.', deadline: 1h}, for_each: '[1, 2, 3, 4, 5]', next: done}
---
graph: numbers
description: A person says numbers.
start: say
nodes:
  say:
    ask:
      message: Which?
      output: {type: object, required: [n], properties: {n: {type: array, items: {type: number}}}}
      deadline: 1h
    next: done
";

async fn started() -> Daemon {
    daemon().with_yaml(&format!("{SCRIPTED_CATALOG}{ASKING_GRAPHS}")).with_failpoints(&model_script()).start().await
}

async fn answer(daemon: &Daemon, id: &str, step: &str, answer: v1::answer_request::Answer) -> Result<v1::Task, Status> {
    let request = v1::AnswerRequest { task_id: id.to_owned(), step_id: step.to_owned(), answer: Some(answer) };
    daemon.tasks().answer(request).await.map(tonic::Response::into_inner)
}

fn text(text: &str) -> v1::answer_request::Answer {
    v1::answer_request::Answer::Text(text.to_owned())
}

/// A task of this graph in which each of five people has answered with a mebibyte.
async fn answered(daemon: &Daemon, graph: &str) -> TaskStream {
    let mut run = daemon.run(task_request("Hello").with_graph(graph)).await;
    for item in 0..5 {
        run.until(|kind| matches!(kind, Kind::Waiting(waiting) if waiting.step_id == format!("each[{item}]"))).await;
        answer(daemon, &run.id, &format!("each[{item}]"), text(&"x".repeat(MIB_BYTES))).await.unwrap();
    }
    run
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_large_is_refused_with_a_reason() {
    let daemon = started().await;
    let too_long = daemon.submit(task_request(&"x".repeat(MIB_BYTES + 1)).with_role("writer")).await.unwrap_err();
    assert_eq!((too_long.code(), reason(&too_long).as_str()), (Code::InvalidArgument, "BAD_REQUEST"), "{too_long}");
    assert!(too_long.message().contains("input") && too_long.message().contains("the limit is 1048576"), "{too_long}");
    let huge = task_request(&"x".repeat(5 * MIB_BYTES)).with_role("writer");
    for refused in [daemon.submit(huge.clone()).await.unwrap_err(), daemon.try_run(huge).await.unwrap_err()] {
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "TOO_LARGE"), "{refused}");
        let message = refused.message();
        assert!(message.contains("the limit is 4194304") && message.contains("1 MiB at most"), "{message}");
        let metadata = refused.get_details_error_info().unwrap().metadata;
        assert!(
            metadata["bytes"].parse::<usize>().unwrap() > 5 * MIB_BYTES && metadata["limit"] == "4194304",
            "{metadata:?}"
        );
    }
    let largest = daemon.submit(task_request(&"x".repeat(MIB_BYTES)).with_graph("numbers")).await.unwrap();
    assert_eq!(largest.input.len(), MIB_BYTES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_too_large_for_a_response_can_be_watched_and_read_in_parts() {
    let daemon = started().await;
    let mut run = answered(&daemon, "talk").await;
    // The response to the answer has every field but the steps.
    run.until(|kind| matches!(kind, Kind::Waiting(waiting) if waiting.step_id == "last")).await;
    let done = answer(&daemon, &run.id, "last", text("yes")).await.unwrap();
    assert_eq!((done.id.as_str(), done.steps.len()), (run.id.as_str(), 0));
    assert_eq!(run.end().await.text(), "yes");
    let mut rewatched = daemon.watch(&run.id, 0).await;
    assert_eq!((rewatched.end().await.text().as_str(), rewatched.seqs()), ("yes", run.seqs()));

    let get = |paths: &[&str], max_bytes| {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let read_mask = Some(prost_types::FieldMask { paths });
        v1::GetTaskRequest { task_id: run.id.clone(), read_mask, max_bytes }
    };
    let refused = daemon.tasks().get(get(&[], 0)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "TOO_LARGE"), "{refused}");
    assert!(refused.message().contains("read_mask") && refused.message().contains("4194304"), "{refused}");
    let part = daemon.tasks().get(get(&["state", "result"], 0)).await.unwrap().into_inner();
    assert_eq!((part.state(), part.result.unwrap().text.as_str()), (v1::TaskState::Completed, "yes"));
    let mut client = daemon.tasks().max_decoding_message_size(16 * MIB_BYTES);
    assert_eq!(client.get(get(&[], 16 * MIB_BYTES as u64)).await.unwrap().into_inner().steps.len(), 7);
    let bad = client.get(get(&[], 1 << 40)).await.unwrap_err();
    assert_eq!((bad.code(), bad.message().contains("max_bytes")), (Code::InvalidArgument, true), "{bad}");
    let mask = Some(prost_types::FieldMask { paths: vec!["id".to_owned(), "steps".to_owned()] });
    let request = v1::ListTasksRequest { read_mask: mask, ..v1::ListTasksRequest::default() };
    let page = daemon.tasks().list(request).await.unwrap().into_inner();
    assert_eq!((page.tasks[0].id.as_str(), page.tasks[0].steps.len()), (run.id.as_str(), 0));
    let (code, out, err) = daemon.cli(["task", "get", "--json"]).arg(&run.id).run().await;
    assert!(code == 0 && out.len() > 5 * MIB_BYTES, "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_no_client_could_receive_fails_its_task_with_a_reason() {
    let daemon = started().await;
    let mut run = answered(&daemon, "heap").await;
    let TaskOutcome::Failed(code, message) = run.end().await else { panic!("its result has ten mebibytes") };
    assert_eq!(code, v1::FailureCode::OutputInvalid);
    assert!(message.contains("the limit is 4128768") && message.contains("sum them up"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_more_values_than_an_event_holds_is_refused_and_may_be_given_again() {
    let daemon = started().await;
    let mut run = daemon.run(task_request("Hello").with_graph("numbers")).await;
    run.until(|kind| matches!(kind, Kind::Waiting(_))).await;
    let numbers = |count| {
        let one = prost_types::Value { kind: Some(Json::NumberValue(1.0)) };
        let list =
            prost_types::Value { kind: Some(Json::ListValue(prost_types::ListValue { values: vec![one; count] })) };
        let fields = [("n".to_owned(), list)].into();
        let kind = Some(Json::StructValue(prost_types::Struct { fields }));
        v1::answer_request::Answer::Json(prost_types::Value { kind })
    };
    let refused = answer(&daemon, &run.id, "", numbers(350_000)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "BAD_REQUEST"), "{refused}");
    assert!(refused.message().contains("the limit is 4128768"), "{refused}");
    answer(&daemon, &run.id, "", numbers(250_000)).await.unwrap();
    assert!(run.end().await.text().starts_with("{\"n\":[1,1"));
}

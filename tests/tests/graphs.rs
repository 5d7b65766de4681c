//! The graph language, from outside: people, items, forks.
#![allow(clippy::unwrap_used)]

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_tests::{Daemon, ask, crew, daemon};
use nix::sys::signal::Signal;
use tonic_types::StatusExt as _;

const GRAPHS: &str = "---
graph: confirmed
description: A person has the last word.
start: say
nodes:
  say: {role: brief, next: confirm}
  confirm:
    ask: {message: 'Ship {{ nodes.say.text }}?', output: {enum: ['yes', 'no']}, deadline: 1h}
    next: done
---
graph: spelled
description: One step for each item, then a person.
start: each
result: each
nodes:
  each: {role: brief, for_each: '[\"one\", \"two\", \"three\"]', message: 'Say {{ item }}.', next: done}
---
graph: hurried
description: Nobody answers in time.
start: confirm
nodes:
  confirm: {ask: {message: 'Well?', deadline: 1s}, next: done}
";

async fn started() -> Daemon {
    daemon().with_yaml(&format!("{}{GRAPHS}", crew())).start().await
}

async fn answer(daemon: &Daemon, id: &str, text: &str) -> Result<v1::Task, tonic::Status> {
    let answer = Some(v1::answer_request::Answer::Text(text.to_owned()));
    let request = v1::AnswerRequest { task_id: id.to_owned(), step_id: String::new(), answer };
    daemon.tasks().answer(request).await.map(tonic::Response::into_inner)
}

fn reason(status: &tonic::Status) -> String {
    status.get_details_error_info().unwrap().reason
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_is_killed_while_a_person_thinks_and_the_answer_goes_on() {
    let daemon = started().await;
    let mut run = daemon.run(ask("Hello").of_graph("confirmed")).await;
    let Kind::Waiting(waiting) = run.until(|kind| matches!(kind, Kind::Waiting(_))).await else { panic!() };
    assert!(
        waiting.message.starts_with("Ship ") && waiting.schema.is_some() && waiting.deadline.is_some(),
        "{waiting:?}"
    );
    assert_eq!(daemon.task(&run.id).await.state(), v1::TaskState::Waiting);
    let (id, seen) = (run.id.clone(), run.last_seq());
    daemon.signal(Signal::SIGKILL);
    let daemon = daemon.again().await;
    let task = daemon.task(&id).await;
    assert_eq!((task.state(), task.steps.last().unwrap().state()), (v1::TaskState::Waiting, v1::StepState::Waiting));
    let bad = answer(&daemon, &id, "perhaps").await.unwrap_err();
    assert_eq!((bad.code(), reason(&bad)), (tonic::Code::InvalidArgument, "BAD_REQUEST".to_owned()));
    answer(&daemon, &id, "yes").await.unwrap();
    let again = answer(&daemon, &id, "yes").await.unwrap_err();
    assert_eq!((again.code(), reason(&again)), (tonic::Code::FailedPrecondition, "NOT_WAITING".to_owned()));
    let mut rest = daemon.watch(&id, seen).await;
    assert_eq!(rest.end().await.text(), "yes");
    let numbers = rest.numbers();
    assert_eq!(numbers, (seen + 1..=seen + numbers.len() as u64).collect::<Vec<_>>());
    let confirmed = daemon.task(&id).await.steps.into_iter().find(|step| step.node == "confirm").unwrap();
    assert_eq!(confirmed.source(), v1::ResultSource::Person);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_is_late_is_refused() {
    let daemon = started().await;
    let mut run = daemon.run(ask("Hello").of_graph("hurried")).await;
    let artel_tests::End::Failed(code, message) = run.end().await else { panic!("nobody answered") };
    assert_eq!((code, message.contains("confirm")), (v1::FailureCode::NoAnswer, true), "{message}");
    let late = answer(&daemon, &run.id, "yes").await.unwrap_err();
    assert_eq!(reason(&late), "NOT_WAITING");
}

#[tokio::test(flavor = "multi_thread")]
async fn items_are_steps_of_their_own_and_the_command_line_shows_answers_and_forks() {
    let daemon = started().await;
    let mut run = daemon.run(ask("Hello").of_graph("spelled")).await;
    run.end().await.text();
    let task = daemon.task(&run.id).await;
    let mut items: Vec<Option<u32>> = task.steps.iter().map(|step| step.item).collect();
    items.sort();
    assert_eq!(items, [None, Some(0), Some(1), Some(2)]);
    let (code, out, _) = daemon.cli(["task", "show"]).arg(&run.id).run().await;
    assert!(code == 0 && out.contains("item 2"), "{out}");

    let mut run = daemon.run(ask("Hello").of_graph("confirmed")).await;
    run.until(|kind| matches!(kind, Kind::Waiting(_))).await;
    let (code, out, err) = daemon.cli(["task", "answer"]).arg(&run.id).arg("no").run().await;
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(run.end().await.text(), "no");
    let (code, out, _) = daemon.cli(["task", "show"]).arg(&run.id).run().await;
    assert!(code == 0 && out.contains("answered by a person"), "{out}");
    let (code, _, err) = daemon.cli(["task", "answer"]).arg(&run.id).arg("no").run().await;
    assert!(code != 0 && err.contains("waits"), "{err}");
    let (code, fork, err) = daemon.cli(["task", "fork", "--from", "confirm"]).arg(&run.id).run().await;
    assert_eq!(code, 0, "{err}");
    let fork = fork.trim().to_owned();
    let mut forked = daemon.watch(&fork, 0).await;
    forked.until(|kind| matches!(kind, Kind::Waiting(_))).await;
    let (code, _, err) = daemon.cli(["task", "cancel", "--step", "confirm"]).arg(&fork).run().await;
    assert_eq!(code, 0, "{err}");
    let artel_tests::End::Failed(code, _) = forked.end().await else { panic!("its only branch was cancelled") };
    let task = daemon.task(&fork).await;
    assert_eq!((code, task.forked_from_task_id.as_str()), (v1::FailureCode::Cancelled, run.id.as_str()));
}

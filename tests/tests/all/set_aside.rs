//! A task that cannot make progress is set aside: the daemon starts, the others run, and a person decides about the task.

use std::fs;
use std::path::Path;
use std::time::Duration;

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_tests::scripted::{SCRIPTED_CATALOG, model_script};
use artel_tests::{Cli, Daemon, DaemonBuilder, TaskRequest, TaskStream, daemon, task_request};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::full_disk::reason;

/// Nothing here takes longer.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
/// The first run of a task that stalls, and its three resumes.
const RUNS: u32 = 4;

const CATALOG: &str = "---
role: killer
description: Ends the daemon.
model: talk
prompt: You kill.
---
role: crasher
description: Ends its engine.
model: talk
prompt: You crash.
limits: {retries: 0, concurrency: 1}
---
graph: asked
description: A person is asked.
start: ask
nodes: {ask: {ask: {message: 'Which?', deadline: 1h}, next: done}}
";

/// Prompts of the killer end the daemon, and those of the crasher its engine.
fn poisoned_script() -> Value {
    let mut replies =
        vec![json!({"when": ["You kill."], "fault": "kill"}), json!({"when": ["You crash."], "fault": "panic"})];
    replies.extend(model_script()["replies"].as_array().unwrap().iter().cloned());
    json!({ "replies": replies })
}

fn poisoned_daemon() -> DaemonBuilder {
    daemon().with_yaml(&format!("{SCRIPTED_CATALOG}{CATALOG}")).with_failpoints(&poisoned_script())
}

/// A task that takes milliseconds.
fn other() -> TaskRequest {
    task_request("Where does the river flow?").with_graph("line")
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(STEP_TIMEOUT, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

async fn another_completes(daemon: &Daemon) {
    within("another task", async { daemon.run(other()).await.end().await.text() }).await;
}

/// Submits a task that waits for a person.
async fn asked(daemon: &Daemon, input: &str) -> String {
    let mut run = daemon.run(task_request(input).with_graph("asked")).await;
    run.until(|kind| matches!(kind, Kind::Waiting(_))).await;
    run.id
}

async fn answer(daemon: &Daemon, id: &str) -> Result<v1::Task, Status> {
    let answer = Some(v1::answer_request::Answer::Text("yes".to_owned()));
    let request = v1::AnswerRequest { task_id: id.to_owned(), answer, ..v1::AnswerRequest::default() };
    daemon.tasks().answer(request).await.map(tonic::Response::into_inner)
}

/// Receives events up to the one that sets the task aside; an error if the daemon ends before.
async fn until_set_aside(run: &mut TaskStream) -> Result<String, Status> {
    loop {
        match run.next().await? {
            Some(Kind::SetAside(set_aside)) => return Ok(set_aside.reason),
            Some(_) => {}
            None => return Err(Status::unavailable("the stream ended")),
        }
    }
}

/// Starts the daemon again and again until it runs with the task of this request set aside; gives the id of the task, and how
/// often the daemon ended.
async fn restarted_until_set_aside(mut builder: DaemonBuilder, request: &TaskRequest) -> (Daemon, String, u32) {
    let mut ends = 0;
    loop {
        assert!(ends <= RUNS, "the daemon ends again and again");
        let daemon = match builder.try_start().await {
            Ok(daemon) => daemon,
            Err(again) => {
                ends += 1;
                builder = again;
                continue;
            }
        };
        // The first time this submits the task. An answer may be lost with the daemon.
        let set_aside = async {
            let id = daemon.submit(request.clone()).await?.id;
            until_set_aside(&mut daemon.try_watch(&id, 0).await?).await?;
            Ok::<_, Status>(id)
        };
        if let Ok(id) = within("the task is set aside or the daemon ends", set_aside).await {
            return (daemon, id, ends);
        }
        ends += 1;
        builder = within("the daemon ends", daemon.after_exit()).await;
    }
}

/// The entry of a task in the list of those that are set aside.
async fn listed(daemon: &Daemon, id: &str) -> Option<v1::Task> {
    let states = vec![v1::TaskState::SetAside.into()];
    let request = v1::ListTasksRequest { states, ..v1::ListTasksRequest::default() };
    let tasks = daemon.tasks().list(request).await.unwrap().into_inner().tasks;
    tasks.into_iter().find(|task| task.id == id)
}

/// What the command line prints of a task that is set aside.
async fn check_command_line(daemon: &Daemon, id: &str, reason: &str) {
    let help = format!("artel task resume {id}");
    let data = daemon.dir().join("data");
    let (_, doctor, _) = Cli::new(["doctor", "--data"]).arg(&data).run().await;
    assert!(doctor.contains(&format!("{id}: ")) && doctor.contains(reason), "{doctor}");
    let (code, list, _) = daemon.cli(["task", "list", "--state", "set_aside"]).run().await;
    assert!(code == 0 && list.contains("set_aside") && list.contains(reason) && list.contains(&help), "{list}");
    let (code, shown, _) = daemon.cli(["task", "get", id]).run().await;
    assert!(code == 0 && shown.contains("set_aside") && shown.contains(reason), "{shown}");
}

/// Stops the daemon in order, so that its journal is one file.
async fn stop(mut daemon: Daemon) -> DaemonBuilder {
    daemon.signal(Signal::SIGTERM);
    within("the daemon stops", daemon.wait()).await;
    daemon.after_exit().await
}

/// Replaces bytes of the journal of a daemon that has stopped, wherever they occur.
fn tamper(data: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let path = data.join("journal.sqlite");
    let mut bytes = fs::read(&path).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect();
    assert!(!places.is_empty(), "`{from}` is in the journal");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_the_daemon_is_set_aside_after_three_resumes_and_taken_up_again() {
    let daemon = poisoned_daemon().start().await;
    let waiting = asked(&daemon, "Which sail?").await;
    let request = task_request("Go").with_role("killer").with_request_id("poison");
    let (daemon, poison, ends) = restarted_until_set_aside(stop(daemon).await, &request).await;
    assert_eq!(ends, RUNS, "it runs once and is resumed three times");
    another_completes(&daemon).await;
    assert_eq!(answer(&daemon, &waiting).await.unwrap().id, waiting);
    within("the task that waited", async { daemon.watch(&waiting, 0).await.end().await.text() }).await;

    let task = listed(&daemon, &poison).await.expect("it is listed");
    let reason = "it was resumed 3 times in a row without progress";
    assert!(task.set_aside_reason.starts_with(reason) && task.end_time.is_none(), "{task:?}");
    assert_eq!(answer(&daemon, &poison).await.unwrap_err().code(), Code::FailedPrecondition);
    check_command_line(&daemon, &poison, reason).await;
    let watched = within("the watch ends", daemon.cli(["task", "watch", &poison]).run()).await;
    assert!(watched.0 == 1 && watched.1.contains(&format!("artel task resume {poison}")), "{watched:?}");

    // It is not resumed by a restart, and its stream stays open.
    let daemon = stop(daemon).await.with_failpoints(&model_script()).start().await;
    another_completes(&daemon).await;
    let mut run = daemon.watch(&poison, 0).await;
    until_set_aside(&mut run).await.unwrap();
    let (code, out, err) = daemon.cli(["task", "resume", &poison]).run().await;
    assert!(code == 0 && out.starts_with(&format!("{poison}: ")), "{out}{err}");
    assert_eq!(within("the task ends", run.end()).await.text(), "<Go>");
    let task = daemon.task(&poison).await;
    assert_eq!((task.state(), task.set_aside_reason.as_str()), (v1::TaskState::Completed, ""));
    let (code, out, err) = daemon.cli(["task", "resume", &poison]).run().await;
    assert_eq!(
        (code, out),
        (0, format!("{poison}: completed\n")),
        "a task that is not set aside stays as it is: {err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_step_ends_its_engine_in_each_attempt_is_set_aside_and_cancelled() {
    let daemon = poisoned_daemon().start().await;
    let mut run = daemon.run(task_request("Go").with_role("crasher")).await;
    let reason = within("the task is set aside", until_set_aside(&mut run)).await.unwrap();
    assert!(reason.starts_with("step `crasher` was interrupted in 4 attempts in a row"), "{reason}");
    another_completes(&daemon).await;
    assert_eq!(listed(&daemon, &run.id).await.expect("it is listed").set_aside_reason, reason);
    // `run` on the command line ends too, and does not cancel what it leaves.
    let left = daemon.cli(["run", "--json", "--role", "crasher", "Go"]).run();
    let (code, out, err) = within("the run ends", left).await;
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(
        (code, last["event"].as_str(), last["state"].as_str()),
        (1, Some("set_aside"), Some("set_aside")),
        "{out}"
    );
    let id = last["id"].as_str().unwrap();
    assert!(err.contains(&format!("artel task resume {id}")), "{err}");
    another_completes(&daemon).await;
    assert_eq!(daemon.task(id).await.state(), v1::TaskState::SetAside);
    assert_eq!(daemon.cancel(&run.id).await.state(), v1::TaskState::Cancelled);
    within("the stream ends", run.end()).await;
    assert!(listed(&daemon, &run.id).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_end_their_engine_in_each_attempt_do_not_take_it_from_the_others() {
    let daemon = poisoned_daemon().start().await;
    // Their steps run one after the other, so that each of them ends the engine four times.
    let mut runs = Vec::new();
    for input in ["Go", "Go on"] {
        runs.push(daemon.run(task_request(input).with_role("crasher")).await);
    }
    for run in &mut runs {
        within("the task is set aside", until_set_aside(run)).await.unwrap();
    }
    another_completes(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_with_a_damaged_row_is_set_aside_and_the_others_run() {
    let daemon = poisoned_daemon().start().await;
    let damaged = asked(&daemon, "a question with the mark 7f3a9c").await;
    let waiting = asked(&daemon, "Which sail?").await;
    let builder = stop(daemon).await;
    let daemon = builder.start().await;
    assert_eq!(daemon.task(&damaged).await.state(), v1::TaskState::Waiting);
    let data = daemon.dir().join("data");
    let builder = stop(daemon).await;
    tamper(&data, "with the mark 7f3a9c", "with the mark 7f3a9d");
    let daemon = builder.start().await;
    another_completes(&daemon).await;
    answer(&daemon, &waiting).await.unwrap();
    within("the task that waited", async { daemon.watch(&waiting, 0).await.end().await.text() }).await;

    let task = listed(&daemon, &damaged).await.expect("it is listed");
    assert!(task.set_aside_reason.contains("wrong checksum"), "{task:?}");
    assert_eq!(daemon.task(&damaged).await.set_aside_reason, task.set_aside_reason);
    check_command_line(&daemon, &damaged, "wrong checksum").await;
    let refused = daemon.resume(&damaged).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "SET_ASIDE"), "{refused}");
    assert!(refused.message().contains("`artel journal repair`"), "{refused}");
    let watched = within("the watch ends", daemon.cli(["task", "watch", &damaged]).run()).await;
    assert!(watched.0 == 1 && watched.2.contains("`artel journal repair`"), "{watched:?}");
    let (code, checked, _) = Cli::new(["journal", "check", "--data"]).arg(&data).run().await;
    assert!(code == 1 && checked.contains("damaged: 1 of "), "its row is left as it is: {checked}");

    assert_eq!(daemon.cancel(&damaged).await.state(), v1::TaskState::Cancelled);
    let daemon = stop(daemon).await.start().await;
    assert_eq!(daemon.task(&damaged).await.state(), v1::TaskState::Cancelled);
    assert!(listed(&daemon, &damaged).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_catalog_is_no_longer_valid_is_set_aside_until_it_is() {
    let daemon = poisoned_daemon().start().await;
    let old = asked(&daemon, "Which sail?").await;
    let data = daemon.dir().join("data");
    let builder = stop(daemon).await;
    // In the stored YAML a line break is `\n`; the reason will quote the line alone.
    let (valid, invalid) = ("\\ngraph: asked", "\\ngrapf: asked");
    tamper(&data, valid, invalid);
    // Other tasks have a catalog of their own.
    let daemon = builder.with_yaml(SCRIPTED_CATALOG).start().await;
    another_completes(&daemon).await;
    let task = listed(&daemon, &old).await.expect("it is listed");
    assert!(task.set_aside_reason.contains("is no longer valid"), "{task:?}");
    check_command_line(&daemon, &old, "is no longer valid").await;
    let refused = daemon.resume(&old).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "SET_ASIDE"), "{refused}");
    assert_eq!(daemon.task(&old).await.state(), v1::TaskState::SetAside);

    let builder = stop(daemon).await;
    tamper(&data, invalid, valid);
    let daemon = builder.start().await;
    assert_eq!(daemon.resume(&old).await.unwrap().state(), v1::TaskState::Waiting);
    answer(&daemon, &old).await.unwrap();
    assert_eq!(within("the task ends", async { daemon.watch(&old, 0).await.end().await.text() }).await, "yes");
}

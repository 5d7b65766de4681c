//! A daemon whose disk is full, and then has space again.

use std::time::Duration;

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_tests::scripted::{FinalState, SCRIPTED_CATALOG, model_script};
use artel_tests::{Cli, Daemon, TaskRequest, daemon, task_request};
use nix::sys::signal::Signal;
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

/// Space for some dozens of tasks, and less than the free space that a failed journal requires before it is writable again.
const MAX_FILE_BYTES: u64 = 1_000_000;
/// For a task that was stopped by the full disk and is resumed.
pub(crate) const RESUME_TIMEOUT: Duration = Duration::from_secs(60);

const CONFIRMED_GRAPH: &str = "---
graph: confirmed
description: A person has the last word.
start: write
nodes:
  write: {role: writer, next: confirm}
  confirm: {ask: {message: 'Ship {{ nodes.write.text }}?', deadline: 1h}, next: done}
";

/// A task of four steps whose labels take some kilobytes of the journal.
fn large_request() -> TaskRequest {
    (0..20).fold(task_request("Where does the river flow?").with_graph("line"), |request, n| {
        request.with_label(&format!("note-{n}"), &n.to_string().repeat(128))
    })
}

/// The reason in the details of an error.
pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

async fn answer(daemon: &Daemon, id: &str) -> Result<v1::Task, Status> {
    let answer = Some(v1::answer_request::Answer::Text("yes".to_owned()));
    let request = v1::AnswerRequest { task_id: id.to_owned(), answer, ..v1::AnswerRequest::default() };
    daemon.tasks().answer(request).await.map(tonic::Response::into_inner)
}

/// Waits until the daemon reports this health.
pub(crate) async fn until_health(daemon: &Daemon, expected: ServingStatus) {
    let mut health = HealthClient::new(daemon.channel());
    let mut reports = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    while reports.message().await.unwrap().unwrap().status != expected as i32 {}
}

/// Follows a task to its end, however often its stream breaks off because the journal is not writable.
pub(crate) async fn ended(daemon: &Daemon, id: &str) -> v1::Task {
    loop {
        let mut run = daemon.watch(id, 0).await;
        let error = loop {
            match run.next().await {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(status) => break Some(status),
            }
        };
        match error {
            None => {
                let seqs = run.seqs();
                assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
                return daemon.task(id).await;
            }
            Some(status) => assert_eq!(reason(&status), "JOURNAL", "{status}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_accepts_no_task_and_loses_none_and_goes_on_when_there_is_space() {
    let yaml = format!("{SCRIPTED_CATALOG}{CONFIRMED_GRAPH}");
    let daemon = daemon().with_yaml(&yaml).with_failpoints(&model_script()).with_file_size_limit(MAX_FILE_BYTES);
    let daemon = daemon.start().await;
    let mut waiting = daemon.run(task_request("Hello").with_graph("confirmed")).await;
    waiting.until(|kind| matches!(kind, Kind::Waiting(_))).await;
    let first = daemon.submit(large_request()).await.unwrap();
    let expected = FinalState::of(&ended(&daemon, &first.id).await);

    let mut accepted = vec![first.id];
    let rejection = loop {
        match daemon.submit(large_request()).await {
            Ok(task) => accepted.push(task.id),
            Err(status) => break status,
        }
        assert!(accepted.len() < 1000, "the disk is never full");
    };
    assert!(accepted.len() > 5, "{accepted:?}");
    until_health(&daemon, ServingStatus::NotServing).await;
    let next_rejection = daemon.submit(task_request("Hello").with_role("writer")).await.unwrap_err();
    for status in [rejection, next_rejection] {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "JOURNAL"), "{status}");
        assert!(status.message().contains("disk is full"), "{status}");
    }
    assert!(answer(&daemon, &waiting.id).await.is_err(), "an answer that is not on disk is not acknowledged");
    for id in &accepted {
        assert_eq!(&daemon.task(id).await.id, id, "an acknowledged task can be read");
    }

    daemon.lift_file_size_limit().await;
    until_health(&daemon, ServingStatus::Serving).await;
    let new = daemon.submit(large_request()).await.unwrap();
    for id in accepted.iter().chain([&new.id]) {
        let task = tokio::time::timeout(RESUME_TIMEOUT, ended(&daemon, id)).await;
        assert_eq!(FinalState::of(&task.expect("a stopped task is resumed")), expected);
    }
    let answered = async { while answer(&daemon, &waiting.id).await.is_err() {} };
    tokio::time::timeout(RESUME_TIMEOUT, answered).await.expect("the person can answer again");
    assert_eq!(ended(&daemon, &waiting.id).await.result.unwrap().text, "yes");

    let (data, mut daemon) = (daemon.dir().join("data"), daemon);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().await.code(), Some(0));
    let (code, out, err) = Cli::new(["journal", "check", "--data"]).arg(&data).run().await;
    assert_eq!((code, out.starts_with(&format!("intact: {} tasks", accepted.len() + 2))), (0, true), "{out}{err}");
}

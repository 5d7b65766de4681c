//! A daemon whose disk is full, and then has room again.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_tests::rehearsal::{Outcome, TROUPE, script};
use artel_tests::{Ask, Cli, Daemon, ask, daemon};
use nix::sys::signal::Signal;
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

/// Room for some dozens of tasks, and less than a journal wants to see before it goes on.
const ROOM: u64 = 1_000_000;

const PERSON: &str = "---
graph: confirmed
description: A person has the last word.
start: write
nodes:
  write: {role: writer, next: confirm}
  confirm: {ask: {message: 'Ship {{ nodes.write.text }}?', deadline: 1h}, next: done}
";

/// A task of four steps that takes some kilobytes of the journal by its notes.
fn large() -> Ask {
    (0..20).fold(ask("Where does the river flow?").of_graph("line"), |ask, n| {
        ask.with_label(&format!("note-{n}"), &n.to_string().repeat(128))
    })
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

async fn answer(daemon: &Daemon, id: &str) -> Result<v1::Task, Status> {
    let answer = Some(v1::answer_request::Answer::Text("yes".to_owned()));
    let request = v1::AnswerRequest { task_id: id.to_owned(), answer, ..v1::AnswerRequest::default() };
    daemon.tasks().answer(request).await.map(tonic::Response::into_inner)
}

/// Waits until the daemon says that it is well, or not.
async fn until(daemon: &Daemon, wanted: ServingStatus) {
    let mut health = HealthClient::new(daemon.channel());
    let mut told = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    while told.message().await.unwrap().unwrap().status != wanted as i32 {}
}

/// Follows a task to its end, however often it is said to rest before it is taken up.
async fn ended(daemon: &Daemon, id: &str) -> v1::Task {
    loop {
        let mut run = daemon.watch(id, 0).await;
        let broke = loop {
            match run.next().await {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(status) => break Some(status),
            }
        };
        match broke {
            None => {
                let numbers = run.numbers();
                assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
                return daemon.task(id).await;
            }
            Some(status) => assert_eq!(reason(&status), "JOURNAL", "{status}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_no_task_and_loses_none_and_goes_on_when_there_is_room() {
    let yaml = format!("{TROUPE}{PERSON}");
    let daemon = daemon().with_yaml(&yaml).in_rehearsal(&script()).with_files_of(ROOM).start().await;
    let mut person = daemon.run(ask("Hello").of_graph("confirmed")).await;
    person.until(|kind| matches!(kind, Kind::Waiting(_))).await;
    let first = daemon.submit(large()).await.unwrap();
    let expected = Outcome::of(&ended(&daemon, &first.id).await);

    let mut taken = vec![first.id];
    let refused = loop {
        match daemon.submit(large()).await {
            Ok(task) => taken.push(task.id),
            Err(status) => break status,
        }
        assert!(taken.len() < 1000, "the disk is never full");
    };
    assert!(taken.len() > 5, "{taken:?}");
    until(&daemon, ServingStatus::NotServing).await;
    let again = daemon.submit(ask("Hello").of_role("writer")).await.unwrap_err();
    for status in [refused, again] {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "JOURNAL"), "{status}");
        assert!(status.message().contains("disk is full"), "{status}");
    }
    assert!(answer(&daemon, &person.id).await.is_err(), "an answer that is not on disk is not acknowledged");
    for id in &taken {
        assert_eq!(&daemon.task(id).await.id, id, "what was acknowledged can be read");
    }

    daemon.make_room().await;
    until(&daemon, ServingStatus::Serving).await;
    let new = daemon.submit(large()).await.unwrap();
    for id in taken.iter().chain([&new.id]) {
        let task = tokio::time::timeout(Duration::from_secs(60), ended(&daemon, id)).await;
        assert_eq!(Outcome::of(&task.expect("a task that rests is taken up")), expected);
    }
    let answered = async { while answer(&daemon, &person.id).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), answered).await.expect("the person is asked again");
    assert_eq!(ended(&daemon, &person.id).await.result.unwrap().text, "yes");

    let (data, mut daemon) = (daemon.dir().join("data"), daemon);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit().await.code(), Some(0));
    let (code, out, err) = Cli::new(["journal", "check", "--data"]).arg(&data).run().await;
    assert_eq!((code, out.starts_with(&format!("intact: {} tasks", taken.len() + 2))), (0, true), "{out}{err}");
}

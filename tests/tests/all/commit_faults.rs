//! Faults of the disk and of the journal's writer at one commit: what clients see, and that no task is lost.

use artel_tests::scripted::{FinalState, SCRIPTED_CATALOG, model_script};
use artel_tests::{DaemonBuilder, TaskRequest, daemon, task_request};
use nix::sys::signal::Signal;
use tonic::Code;
use tonic_health::ServingStatus;

use crate::full_disk::{RESUME_TIMEOUT, ended, reason, until_health};

fn scripted_daemon() -> DaemonBuilder {
    daemon().with_yaml(SCRIPTED_CATALOG).with_failpoints(&model_script())
}

/// A task of several commits: the first one accepts it.
fn request() -> TaskRequest {
    task_request("Where does the river flow?").with_graph("line")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_commit_finds_the_disk_full_is_resumed_when_there_is_space() {
    let daemon = scripted_daemon().with_fault_at("before:5=full").start().await;
    let disturbed = daemon.submit(request()).await.unwrap();
    let disturbed = tokio::time::timeout(RESUME_TIMEOUT, ended(&daemon, &disturbed.id)).await.expect("it is resumed");
    daemon.until_logged("disk is full").await;
    let undisturbed = daemon.submit(request()).await.unwrap();
    assert_eq!(FinalState::of(&disturbed), FinalState::of(&ended(&daemon, &undisturbed.id).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_panic_of_the_writer_tasks_can_be_read_none_is_accepted_and_a_restart_goes_on() {
    let daemon = scripted_daemon().with_fault_at("before:5=panic").start().await;
    let id = daemon.submit(request()).await.unwrap().id;
    until_health(&daemon, ServingStatus::NotServing).await;
    assert_eq!(daemon.task(&id).await.id, id, "an acknowledged task can be read");
    let refused = daemon.submit(request()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "JOURNAL"), "{refused}");
    daemon.signal(Signal::SIGKILL);
    let mut daemon = daemon;
    daemon.wait().await;
    let daemon = daemon.after_exit().await.start().await;
    let new = daemon.submit(request()).await.unwrap();
    assert_eq!(FinalState::of(&ended(&daemon, &id).await), FinalState::of(&ended(&daemon, &new.id).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_hangs_holds_up_no_reader_and_loses_nothing_when_the_daemon_is_killed() {
    let daemon = scripted_daemon().with_fault_at("before:5=hang").start().await;
    let id = daemon.submit(request()).await.unwrap().id;
    assert_eq!(daemon.task(&id).await.id, id, "an acknowledged task can be read");
    daemon.signal(Signal::SIGKILL);
    let mut daemon = daemon;
    daemon.wait().await;
    let daemon = daemon.after_exit().await.start().await;
    let new = daemon.submit(request()).await.unwrap();
    assert_eq!(FinalState::of(&ended(&daemon, &id).await), FinalState::of(&ended(&daemon, &new.id).await));
}

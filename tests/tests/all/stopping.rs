//! SIGTERM ends the daemon whatever hangs, and what was acknowledged is there at the next start.

use std::process::Stdio;
use std::time::Duration;

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_proto::v1::progress::Stage;
use artel_tests::hub::{HubServer, MODEL_URI};
use artel_tests::scripted::{FinalState, SCRIPTED_CATALOG, model_script};
use artel_tests::{Daemon, DaemonBuilder, TaskRequest, daemon, task_request};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::full_disk::ended;

/// The phases of stopping together, with a grace period of a second, on a busy machine.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// A submission that takes this long waits for a commit that hangs.
const SUBMISSION_TIMEOUT: Duration = Duration::from_secs(2);

/// A task that waits for a person.
const ASKING_GRAPH: &str = "---
graph: asking
description: Waits for a person.
start: confirm
nodes:
  confirm: {ask: {message: Ship it?, deadline: 1h}, next: done}
";

fn scripted_daemon() -> DaemonBuilder {
    daemon().with_yaml(SCRIPTED_CATALOG).with_failpoints(&model_script()).with_settings("grace: 1s\n")
}

/// A task of several commits: the first one accepts it.
fn request() -> TaskRequest {
    task_request("Where does the river flow?").with_graph("line")
}

/// Sends SIGTERM and waits for the end; the exit code.
async fn terminated(daemon: &mut Daemon) -> Option<i32> {
    daemon.signal(Signal::SIGTERM);
    tokio::time::timeout(STOP_TIMEOUT, daemon.wait()).await.expect("it ends").code()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_hangs_holds_up_neither_the_end_nor_the_task_afterwards() {
    let mut daemon = scripted_daemon().with_fault_at("before:6=hang").start().await;
    let id = daemon.submit(request()).await.unwrap().id;
    // Submissions are accepted until a commit hangs.
    while tokio::time::timeout(SUBMISSION_TIMEOUT, daemon.submit(request())).await.is_ok() {}
    assert_eq!(terminated(&mut daemon).await, Some(1));
    let log = daemon.log();
    let last = log.lines().last().unwrap();
    assert!(last.contains("left what did not end in time"), "{log}");
    assert!(last.contains("the journal, whose disk hangs") && last.contains("submissions"), "{last}");
    let daemon = daemon.after_exit().await.start().await;
    let new = daemon.submit(request()).await.unwrap();
    assert_eq!(FinalState::of(&ended(&daemon, &id).await), FinalState::of(&ended(&daemon, &new.id).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_hangs_is_ended_too() {
    let builder = scripted_daemon().with_fault_at("before:1=hang");
    let terminated = tokio::time::timeout(STOP_TIMEOUT, builder.terminate_at_start("the limits of connections"));
    let (status, log) = terminated.await.expect("it ends");
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("stopping before the daemon has served"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_holds_nothing_up() {
    let mut daemon = scripted_daemon().with_yaml(&format!("{SCRIPTED_CATALOG}{ASKING_GRAPH}")).start().await;
    let id = daemon.submit(task_request("Hello").with_graph("asking")).await.unwrap().id;
    // A watcher whose process is stopped, and one that leaves its answers in the connection.
    let mut watcher = daemon.cli(["task", "watch", &id]).into_command();
    let mut watcher = watcher.stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = [0];
    watcher.stdout.as_mut().unwrap().read_exact(&mut shown).await.unwrap();
    kill(Pid::from_raw(watcher.id().unwrap().cast_signed()), Signal::SIGSTOP).unwrap();
    let mut health = HealthClient::new(daemon.channel());
    let _unread = health.watch(HealthCheckRequest::default()).await.unwrap();
    let code = terminated(&mut daemon).await;
    watcher.kill().await.unwrap();
    assert_eq!(code, Some(0), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_hangs_is_left_and_continues_at_the_next_start() {
    let hub = HubServer::start();
    let yaml = format!(
        "model: smol\nfile: {MODEL_URI}\ncontext: 512\nsequences: 1\n---\n\
         role: speaker\ndescription: D.\nmodel: smol\nprompt: You answer briefly.\n\
         sampling: {{temperature: 0, max_tokens: 8}}\nlimits: {{timeout: 5m, idle: 5m}}\n"
    );
    let builder = daemon().with_yaml(&yaml).without_models().with_settings("grace: 1s\n");
    let mut daemon = builder.with_env("HF_ENDPOINT", &hub.endpoint).start().await;
    let mut run = daemon.run(task_request("Hello").with_role("speaker")).await;
    run.until(|kind| {
        matches!(kind, Kind::Progress(v1::Progress { stage: Some(Stage::Loading(loading)), .. }) if loading.fraction > 0.5)
    })
    .await;
    assert_eq!(terminated(&mut daemon).await, Some(0), "{}", daemon.log());
    hub.resume();
    let builder = daemon.after_exit().await.without_models();
    let daemon = builder.with_env("HF_ENDPOINT", &hub.endpoint).start().await;
    let task = tokio::time::timeout(STOP_TIMEOUT, ended(&daemon, &run.id)).await.expect("it is resumed");
    assert_eq!(task.state(), v1::TaskState::Completed, "{task:?}");
}

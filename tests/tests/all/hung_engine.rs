//! Engines that hang, and engines that are only slow: the first are ended and replaced, the others left alone.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_tests::{Daemon, DaemonBuilder, RpcServer, TaskStream, daemon, task_request, test_catalog};
use nix::sys::signal::Signal;

use crate::engines::{ROLE_WITH_EXAMPLE, engines, load, signal_engine};

/// No test waits longer for what must happen.
const TEST_TIMEOUT: Duration = Duration::from_secs(180);

/// A role of the model `solo` whose answers take a while.
const STORYTELLERS: &str = "---
role: storyteller
description: Tells stories.
model: solo
prompt: You tell stories that never end.
sampling: {temperature: 0.8, seed: 7, max_tokens: 96, repeat_penalty: 1.1}
limits: {timeout: 10m, idle: 10m, retries: 0}
";

fn storytellers(settings: &str) -> DaemonBuilder {
    daemon().with_yaml(&format!("{}{STORYTELLERS}", test_catalog())).with_settings(settings)
}

/// A story whose first token has come.
async fn begun_story(daemon: &Daemon) -> TaskStream {
    let mut story = daemon.run(task_request("Tell me a story.").with_role("storyteller")).await;
    story.until_token().await;
    story
}

async fn engine(daemon: &Daemon, id: &str) -> v1::Engine {
    engines(daemon).await[id].clone()
}

/// The text of a task that must end.
async fn text(task: &mut TaskStream) -> String {
    tokio::time::timeout(TEST_TIMEOUT, task.end()).await.expect("it ends").text()
}

/// The failures of a task's steps.
fn failures(task: &TaskStream) -> Vec<v1::Failure> {
    let failed = task.events.iter().filter_map(|event| match &event.kind {
        Some(Kind::StepFailed(failed)) => failed.failure.clone(),
        _ => None,
    });
    failed.collect()
}

/// The state of an engine's process: `T` if it is stopped, `Z` if it has exited and is not waited for; none if it is gone.
fn process_state(engine: &v1::Engine) -> Option<char> {
    let status = fs::read_to_string(format!("/proc/{}/status", engine.process_id)).ok()?;
    status.lines().find_map(|line| line.strip_prefix("State:"))?.trim().chars().next()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_stopped_is_ended_reported_and_replaced() {
    let daemon = storytellers("hang_timeout: 2s\n").start().await;
    let mut story = begun_story(&daemon).await;
    let stopped = engine(&daemon, "solo").await;
    signal_engine(&stopped, Signal::SIGSTOP);
    assert!(!text(&mut story).await.is_empty());
    let failures = failures(&story);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!(failures[0].code(), v1::FailureCode::Interrupted, "{failures:?}");
    assert!(failures[0].message.contains("hung: no progress for 2 s, its process was stopped"), "{failures:?}");
    let after = engine(&daemon, "solo").await;
    assert_eq!((after.restarts, after.state()), (1, v1::EngineState::Ready));
    assert!(after.problem.contains("hung: no progress for 2 s"), "{after:?}");
    assert_eq!(process_state(&stopped), None, "SIGKILL ends a stopped process");
    daemon.until_logged("the engine hangs and its process is killed").await;
    let (_, out, _) = daemon.cli(["engines"]).run().await;
    assert!(out.contains("hung: no progress"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_engine_that_is_stopped_is_ended_too() {
    let daemon = storytellers("hang_timeout: 2s\n").start().await;
    let stopped = load(&daemon, "talk").await;
    signal_engine(&stopped, Signal::SIGSTOP);
    let ended = async {
        loop {
            let talk = engine(&daemon, "talk").await;
            if talk.state() != v1::EngineState::Ready {
                return talk;
            }
        }
    };
    let ended = tokio::time::timeout(TEST_TIMEOUT, ended).await.expect("it is found");
    assert!(ended.problem.contains("hung"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_of_another_model_complete_while_an_engine_is_stopped() {
    // It is not ended during the test: what is shown is that the others do not wait for it.
    let daemon = storytellers("hang_timeout: 30m\n").start().await;
    let mut story = begun_story(&daemon).await;
    let stopped = engine(&daemon, "solo").await;
    signal_engine(&stopped, Signal::SIGSTOP);
    for question in ["What is a ship?", "What is a sail?"] {
        let mut task = daemon.run(task_request(question).with_role("short")).await;
        text(&mut task).await;
        assert_eq!(failures(&task), []);
    }
    assert_eq!(process_state(&stopped), Some('T'), "it holds nothing that others need");
    signal_engine(&stopped, Signal::SIGCONT);
    text(&mut story).await;
    assert_eq!(failures(&story), [], "it continues where it was");
    let after = engines(&daemon).await;
    assert_eq!((after["solo"].restarts, after["talk"].restarts), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_embedding_engine_costs_a_decision_some_time_and_others_nothing() {
    let yaml = format!("{}{ROLE_WITH_EXAMPLE}", test_catalog());
    let daemon = daemon().with_yaml(&yaml).with_settings("hang_timeout: 2s\n").start().await;
    let preview = async |question: &str| {
        let request = v1::PreviewRequest {
            question: question.to_owned(),
            roles: vec!["words".to_owned()],
            signals: vec!["embedding".to_owned()],
            settings: "plain".to_owned(),
            ..v1::PreviewRequest::default()
        };
        let answer = tokio::time::timeout(TEST_TIMEOUT, daemon.router().preview(request)).await;
        answer.expect("it is answered").unwrap().into_inner()
    };
    preview("What is a word?").await;
    let stopped = load(&daemon, "minilm").await;
    signal_engine(&stopped, Signal::SIGSTOP);
    let mut task = daemon.run(task_request("What is a ship?").with_role("short")).await;
    let (decided, _) = tokio::join!(preview("What is a letter?"), text(&mut task));
    assert!(decided.decision.is_some(), "{decided:?}");
    assert_eq!(failures(&task), []);
    let after = engines(&daemon).await;
    assert_eq!((after["minilm"].restarts, after["talk"].restarts), (1, 0));
}

/// Lets a process run for a fifth of the time, until this is dropped.
struct Throttle {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Throttle {
    fn start(engine: &v1::Engine) -> Self {
        let (ends, engine) = (Arc::new(AtomicBool::new(false)), engine.clone());
        let has_ended = ends.clone();
        let thread = std::thread::spawn(move || {
            while !has_ended.load(Ordering::Relaxed) {
                signal_engine(&engine, Signal::SIGSTOP);
                sleep(Duration::from_millis(400));
                signal_engine(&engine, Signal::SIGCONT);
                sleep(Duration::from_millis(100));
            }
        });
        Self { ends, thread: Some(thread) }
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_engine_is_not_taken_for_a_dead_one() {
    let daemon = storytellers("hang_timeout: 3s\n").start().await;
    let mut story = begun_story(&daemon).await;
    let slow = engine(&daemon, "solo").await;
    let throttle = Throttle::start(&slow);
    text(&mut story).await;
    drop(throttle);
    assert_eq!(failures(&story), []);
    let after = engine(&daemon, "solo").await;
    assert_eq!((after.restarts, after.process_id), (0, slow.process_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_was_stopped_itself_blames_no_engine() {
    let daemon = storytellers("hang_timeout: 1s\n").start().await;
    let mut story = begun_story(&daemon).await;
    let before = engine(&daemon, "solo").await;
    daemon.signal(Signal::SIGSTOP);
    // Longer than the timeout: the clocks go on.
    tokio::time::sleep(Duration::from_secs(4)).await;
    daemon.signal(Signal::SIGCONT);
    text(&mut story).await;
    assert_eq!(failures(&story), []);
    let after = engine(&daemon, "solo").await;
    assert_eq!((after.restarts, after.process_id), (0, before.process_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_engine_delays_neither_an_unload_nor_the_end_of_the_daemon() {
    let mut daemon = storytellers("hang_timeout: 30m\n").start().await;
    for interrupt in [false, true] {
        let stopped = load(&daemon, "talk").await;
        signal_engine(&stopped, Signal::SIGSTOP);
        let mut client = daemon.engines();
        let unload = client.unload(v1::UnloadRequest { model: "talk".to_owned(), interrupt });
        tokio::time::timeout(TEST_TIMEOUT, unload).await.expect("it returns").unwrap();
        assert_eq!(process_state(&stopped), None);
    }
    let stopped = load(&daemon, "talk").await;
    signal_engine(&stopped, Signal::SIGSTOP);
    daemon.signal(Signal::SIGTERM);
    let ended = tokio::time::timeout(TEST_TIMEOUT, daemon.wait()).await.expect("it ends");
    assert!(ended.success(), "{ended}");
    let gone = async {
        // It is an orphan now, for which its new parent may not wait.
        while !matches!(process_state(&stopped), None | Some('Z')) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, gone).await.expect("it was killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rpc_server_that_stops_answering_is_named_and_its_steps_run_again() {
    let server = RpcServer::start().await;
    let yaml = format!(
        "---\nmodel: remote\nfile: SmolLM2-135M-Instruct.Q4_1.gguf\ncontext: 512\nsequences: 1\ndevices: ['{}']\n\
         ---\nrole: far\ndescription: D.\nmodel: remote\nprompt: You tell stories that never end.\n\
         sampling: {{temperature: 0.8, seed: 7, max_tokens: 48, repeat_penalty: 1.1}}\n\
         limits: {{timeout: 10m, idle: 10m, retries: 0}}\n",
        server.device_name()
    );
    let settings = format!("hang_timeout: 2s\nrpc: ['{}']\n", server.address);
    let daemon = daemon().with_yaml(&yaml).with_settings(&settings).start().await;
    let mut story = daemon.run(task_request("Tell me a story.").with_role("far")).await;
    story.until_token().await;
    server.signal_clients(Signal::SIGSTOP);
    assert!(!text(&mut story).await.is_empty());
    let failures = failures(&story);
    assert_eq!(failures.len(), 1, "{failures:?}");
    let message = &failures[0].message;
    assert!(message.contains("hung: no progress for") && message.contains(&server.address), "{message}");
    let after = engine(&daemon, "remote").await;
    assert_eq!(after.restarts, 1);
}

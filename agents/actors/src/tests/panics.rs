//! What happens when an actor panics: the table in the crate's documentation, line by line.

use std::time::Duration;

use artel_task::event::FailureCode;
use artel_task::{EventKind, RoleName};
use tempfile::tempdir;

use super::stage::*;
use crate::supervisor::Who;
use crate::{Crew, MAX_REVIVALS};

fn is_resumed(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Resumed)
}

/// A crew whose engine stands at its gate with one step of a task.
async fn held(dir: &std::path::Path, script: &Script) -> (Crew, artel_task::TaskId) {
    let crew = crew(dir, script).await;
    let task = crew.submit(ask(role("writer"), "Where?")).await.unwrap();
    heard(&crew, task, 1, is_started).await;
    (crew, task)
}

#[tokio::test]
async fn a_conductor_takes_its_task_up_again_from_the_journal() {
    let dir = tempdir().unwrap();
    let script = Script::gated();
    let (crew, task) = held(dir.path(), &script).await;
    crew.panic(Who::Conductor(task));
    heard(&crew, task, 1, is_resumed).await;
    script.gate.open();
    let events = to_the_end(&crew, task).await;
    assert_eq!(end(&events), ("completed", "<Where?>".to_owned()));
    assert_eq!(events.iter().filter(|event| is_started(&event.kind)).count(), 2);
    // The first attempt was cancelled, in the engine if it had come so far.
    let report = crew.engines().await.unwrap().into_iter().find(|r| r.model.name.as_str() == "talk").unwrap();
    assert_eq!(report.stats.map(|stats| (stats.running, stats.finished)), Some((0, 1)));
}

#[tokio::test]
async fn a_conductor_that_keeps_panicking_fails_its_task() {
    let dir = tempdir().unwrap();
    let script = Script::gated();
    let (crew, task) = held(dir.path(), &script).await;
    for n in 0..MAX_REVIVALS {
        crew.panic(Who::Conductor(task));
        heard(&crew, task, n as usize + 1, is_resumed).await;
    }
    crew.panic(Who::Conductor(task));
    let (word, text) = end(&to_the_end(&crew, task).await);
    assert_eq!((word, text.starts_with("Internal")), ("failed", true), "{text}");
    script.gate.open();
}

#[tokio::test]
async fn an_expert_that_panics_loses_no_step() {
    let dir = tempdir().unwrap();
    let script = Script::gated();
    let (crew, task) = held(dir.path(), &script).await;
    crew.panic(Who::Expert(RoleName::parse("writer").unwrap()));
    let next = crew.submit(ask(role("writer"), "B")).await.unwrap();
    script.gate.open();
    assert_eq!(end(&to_the_end(&crew, task).await), ("completed", "<Where?>".to_owned()));
    assert_eq!(end(&to_the_end(&crew, next).await), ("completed", "<B>".to_owned()));
}

#[tokio::test]
async fn a_router_that_panics_decides_the_next_question() {
    let dir = tempdir().unwrap();
    let crew = crew(dir.path(), &Script::open()).await;
    let question = "Which sail is good for a storm?";
    let first = crew.submit(ask(graph("routed"), question)).await.unwrap();
    assert_eq!(end(&to_the_end(&crew, first).await).0, "completed");
    crew.panic(Who::Router);
    let second = crew.submit(ask(graph("routed"), question)).await.unwrap();
    let events = to_the_end(&crew, second).await;
    assert_eq!(end(&events).0, "completed");
}

#[tokio::test]
async fn steps_outlive_the_keeper_of_their_engine() {
    let dir = tempdir().unwrap();
    let script = Script::gated();
    let (crew, task) = held(dir.path(), &script).await;
    let model = crew.catalog().model("talk").unwrap().clone();
    tokio::task::spawn_blocking({
        let gate = script.gate.clone();
        move || gate.wait_until_held()
    })
    .await
    .unwrap();
    crew.panic(Who::Keeper(model));
    script.gate.open();
    let events = to_the_end(&crew, task).await;
    assert_eq!(end(&events), ("completed", "<Where?>".to_owned()));
    assert!(!events.iter().any(|event| matches!(event.kind, EventKind::StepFailed { .. })), "the step ran on");
    let next = crew.submit(ask(role("writer"), "B")).await.unwrap();
    assert_eq!(end(&to_the_end(&crew, next).await), ("completed", "<B>".to_owned()));
}

#[tokio::test]
async fn a_loader_that_panics_is_a_model_that_is_not_there() {
    struct Faulty;
    #[async_trait::async_trait]
    impl crate::Loader for Faulty {
        async fn load(
            &self,
            _: &artel_roles::Model,
            _: &artel_placement::Placement,
            _: crate::Progress,
        ) -> Result<artel_engine::EngineHandle, String> {
            panic!("as the test asked")
        }
    }
    let dir = tempdir().unwrap();
    let journal = artel_journal::Journal::open(dir.path(), artel_journal::Options::default()).await.unwrap();
    let catalog = parse(&CATALOG.replace("retries: 2", "retries: 0"));
    let crew = Crew::start(crate::Options::default(), catalog, journal, std::sync::Arc::new(Faulty)).await.unwrap();
    let task = crew.submit(ask(role("writer"), "x")).await.unwrap();
    let (word, text) = end(&to_the_end(&crew, task).await);
    assert_eq!((word, text.starts_with("ModelUnavailable")), ("failed", true), "{text}");
}

#[tokio::test]
async fn a_script_that_panics_in_the_engine_ends_it_and_its_step_is_tried_again() {
    let dir = tempdir().unwrap();
    let once = std::sync::atomic::AtomicBool::new(true);
    let accident = move |_: u64, _: &[artel_engine::backend::BatchToken]| {
        assert!(!once.swap(false, std::sync::atomic::Ordering::SeqCst), "as the test asked");
        None
    };
    let script = Script { accident: Some(std::sync::Arc::new(accident)), ..Script::open() };
    let crew = crew(dir.path(), &script).await;
    let task = crew.submit(ask(role("sailor"), "Go")).await.unwrap();
    let events = to_the_end(&crew, task).await;
    assert_eq!(end(&events), ("completed", "<Go>".to_owned()));
    let failed = events.iter().find_map(|event| match &event.kind {
        EventKind::StepFailed { failure, .. } => Some(failure.code),
        _ => None,
    });
    assert_eq!(failed, Some(FailureCode::Interrupted));
}

#[tokio::test]
async fn the_end_of_the_supervisor_is_the_end_of_the_crew_and_of_no_task() {
    let dir = tempdir().unwrap();
    let script = Script::gated();
    let (crew, task) = held(dir.path(), &script).await;
    crew.panic(Who::Supervisor);
    crew.ended().await;
    script.gate.open();
    assert!(crew.submit(ask(role("writer"), "B")).await.is_err());
    crew.drain(Duration::ZERO).await;
    drop(crew);
    let again = super::stage::crew(dir.path(), &Script::open()).await;
    assert_eq!(end(&to_the_end(&again, task).await), ("completed", "<Where?>".to_owned()));
}

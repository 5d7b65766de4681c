//! What happens when an actor panics: the table in the crate's documentation, line by line.

use std::time::Duration;

use artel_task::event::FailureCode;
use artel_task::{EventKind, RoleName};
use tempfile::tempdir;

use super::fixtures::*;
use crate::supervisor::ChildId;
use crate::{MAX_TASK_RESTARTS, Runtime};

fn is_resumed(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Resumed)
}

fn is_set_aside(kind: &EventKind) -> bool {
    matches!(kind, EventKind::SetAside { .. })
}

async fn set_aside_reason(runtime: &Runtime, task: artel_task::TaskId) -> String {
    let events = runtime.history(task).await.unwrap();
    match &events.last().unwrap().kind {
        EventKind::SetAside { reason } => reason.clone(),
        other => panic!("{other:?}"),
    }
}

/// A runtime whose engine waits at its gate with one step of a task.
async fn blocked_task(dir: &std::path::Path, loader: &ScriptedLoader) -> (Runtime, artel_task::TaskId) {
    let runtime = runtime(dir, loader).await;
    let task = runtime.submit(submission(role("writer"), "Where?")).await.unwrap();
    wait_for_events(&runtime, task, 1, is_started).await;
    (runtime, task)
}

#[tokio::test]
async fn a_task_runner_resumes_its_task_from_the_journal() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader::gated();
    let (runtime, task) = blocked_task(dir.path(), &loader).await;
    runtime.panic(ChildId::TaskRunner(task));
    wait_for_events(&runtime, task, 1, is_resumed).await;
    loader.gate.open();
    let events = all_events(&runtime, task).await;
    assert_eq!(end(&events), ("completed", "<Where?>".to_owned()));
    assert_eq!(events.iter().filter(|event| is_started(&event.kind)).count(), 2);
    // The first attempt was cancelled, in the engine if it had come so far.
    let report = runtime.engines().await.unwrap().into_iter().find(|r| r.model.name.as_str() == "talk").unwrap();
    assert_eq!(report.stats.map(|stats| (stats.running, stats.finished)), Some((0, 1)));
}

#[tokio::test]
async fn a_task_runner_that_keeps_panicking_has_its_task_set_aside() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader::gated();
    let (runtime, task) = blocked_task(dir.path(), &loader).await;
    for n in 0..MAX_TASK_RESTARTS {
        runtime.panic(ChildId::TaskRunner(task));
        wait_for_events(&runtime, task, n as usize + 1, is_resumed).await;
    }
    runtime.panic(ChildId::TaskRunner(task));
    wait_for_events(&runtime, task, 1, is_set_aside).await;
    let reason = set_aside_reason(&runtime, task).await;
    assert!(reason.contains("runner panicked 4 times"), "{reason}");
    loader.gate.open();
    runtime.resume(&artel_actors::Viewer::owner(), task).await.unwrap();
    assert_eq!(end(&all_events(&runtime, task).await), ("completed", "<Where?>".to_owned()));
}

#[tokio::test]
async fn an_expert_that_panics_loses_no_step() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader::gated();
    let (runtime, task) = blocked_task(dir.path(), &loader).await;
    runtime.panic(ChildId::Expert(RoleName::parse("writer").unwrap()));
    let next = runtime.submit(submission(role("writer"), "B")).await.unwrap();
    loader.gate.open();
    assert_eq!(end(&all_events(&runtime, task).await), ("completed", "<Where?>".to_owned()));
    assert_eq!(end(&all_events(&runtime, next).await), ("completed", "<B>".to_owned()));
}

#[tokio::test]
async fn a_router_that_panics_decides_the_next_question() {
    let dir = tempdir().unwrap();
    let runtime = runtime(dir.path(), &ScriptedLoader::open()).await;
    let question = "Which sail is good for a storm?";
    let first = runtime.submit(submission(graph("routed"), question)).await.unwrap();
    assert_eq!(end(&all_events(&runtime, first).await).0, "completed");
    runtime.panic(ChildId::Router);
    let second = runtime.submit(submission(graph("routed"), question)).await.unwrap();
    let events = all_events(&runtime, second).await;
    assert_eq!(end(&events).0, "completed");
}

#[tokio::test]
async fn steps_outlive_the_host_of_their_engine() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader::gated();
    let (runtime, task) = blocked_task(dir.path(), &loader).await;
    let model = runtime.catalog().model("talk").unwrap().clone();
    tokio::task::spawn_blocking({
        let gate = loader.gate.clone();
        move || gate.wait_until_held()
    })
    .await
    .unwrap();
    runtime.panic(ChildId::EngineHost(model));
    loader.gate.open();
    let events = all_events(&runtime, task).await;
    assert_eq!(end(&events), ("completed", "<Where?>".to_owned()));
    assert!(!events.iter().any(|event| matches!(event.kind, EventKind::StepFailed { .. })), "the step continued");
    let next = runtime.submit(submission(role("writer"), "B")).await.unwrap();
    assert_eq!(end(&all_events(&runtime, next).await), ("completed", "<B>".to_owned()));
}

#[tokio::test]
async fn a_loader_that_panics_is_an_unavailable_model() {
    struct PanickingLoader;
    #[async_trait::async_trait]
    impl crate::Loader for PanickingLoader {
        async fn load(
            &self,
            _: &artel_roles::Model,
            _: &artel_placement::Placement,
            _: crate::LoadProgress,
        ) -> Result<artel_engine::EngineHandle, artel_engine::LoadError> {
            panic!("as the test asked")
        }
    }
    let dir = tempdir().unwrap();
    let journal = artel_journal::Journal::open(dir.path(), artel_journal::Options::default()).await.unwrap();
    let catalog = parse(&CATALOG.replace("retries: 2", "retries: 0"));
    let runtime = Runtime::start(crate::Options::default(), catalog, journal, std::sync::Arc::new(PanickingLoader))
        .await
        .unwrap();
    let task = runtime.submit(submission(role("writer"), "x")).await.unwrap();
    let (word, text) = end(&all_events(&runtime, task).await);
    assert_eq!((word, text.starts_with("ModelUnavailable")), ("failed", true), "{text}");
}

#[tokio::test]
async fn a_script_that_panics_in_the_engine_ends_it_and_its_step_is_retried() {
    let dir = tempdir().unwrap();
    let once = std::sync::atomic::AtomicBool::new(true);
    let fault_hook = move |_: u64, _: &[artel_engine::backend::BatchToken]| {
        assert!(!once.swap(false, std::sync::atomic::Ordering::SeqCst), "as the test asked");
        None
    };
    let loader = ScriptedLoader { fault_hook: Some(std::sync::Arc::new(fault_hook)), ..ScriptedLoader::open() };
    let runtime = runtime(dir.path(), &loader).await;
    let task = runtime.submit(submission(role("sailor"), "Go")).await.unwrap();
    let events = all_events(&runtime, task).await;
    assert_eq!(end(&events), ("completed", "<Go>".to_owned()));
    let failed = events.iter().find_map(|event| match &event.kind {
        EventKind::StepFailed { failure, .. } => Some(failure.code),
        _ => None,
    });
    assert_eq!(failed, Some(FailureCode::Interrupted));
}

/// An engine that only ever crashes is given up, for all tasks; one that serves others between the crashes is not.
#[tokio::test]
async fn a_step_that_ends_its_engine_in_each_attempt_has_its_task_set_aside_and_others_go_on() {
    let dir = tempdir().unwrap();
    let fault_hook = move |_: u64, batch: &[artel_engine::backend::BatchToken]| {
        // Characters are tokens.
        assert!(!batch.iter().any(|token| token.token.0 == '☠' as i32), "as the test asked");
        None
    };
    let loader = ScriptedLoader { fault_hook: Some(std::sync::Arc::new(fault_hook)), ..ScriptedLoader::open() };
    let runtime = runtime(dir.path(), &loader).await;
    for input in ["Go ☠", "Again ☠"] {
        let task = runtime.submit(submission(role("sailor"), input)).await.unwrap();
        wait_for_events(&runtime, task, 1, is_set_aside).await;
        let reason = set_aside_reason(&runtime, task).await;
        assert!(reason.contains("step `sailor` was interrupted in 4 attempts in a row"), "{reason}");
        let other = runtime.submit(submission(role("writer"), "Where?")).await.unwrap();
        assert_eq!(end(&all_events(&runtime, other).await), ("completed", "<Where?>".to_owned()));
        runtime.cancel(task, "enough").await.unwrap();
        assert_eq!(end(&all_events(&runtime, task).await), ("cancelled", "enough".to_owned()));
    }
}

#[tokio::test]
async fn the_end_of_the_supervisor_is_the_end_of_the_runtime_and_of_no_task() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader::gated();
    let (runtime, task) = blocked_task(dir.path(), &loader).await;
    runtime.panic(ChildId::Supervisor);
    runtime.stopped().await;
    loader.gate.open();
    assert!(runtime.submit(submission(role("writer"), "B")).await.is_err());
    runtime.drain(Duration::ZERO).await;
    drop(runtime);
    let again = super::fixtures::runtime(dir.path(), &ScriptedLoader::open()).await;
    assert_eq!(end(&all_events(&again, task).await), ("completed", "<Where?>".to_owned()));
}

#[tokio::test]
async fn a_model_scheduler_that_panics_is_replaced_and_gets_the_status_of_every_engine() {
    let dir = tempdir().unwrap();
    let runtime = small_runtime(dir.path()).await;
    let first = runtime.submit(submission(role("of-one"), "a")).await.unwrap();
    assert_eq!(end(&all_events(&runtime, first).await), ("completed", "<a>".to_owned()));
    runtime.panic(ChildId::ModelScheduler);
    for (name, word) in [("of-two", "b"), ("of-three", "c"), ("of-one", "d")] {
        let task = runtime.submit(submission(role(name), word)).await.unwrap();
        assert_eq!(end(&all_events(&runtime, task).await), ("completed", format!("<{word}>")));
    }
}

#[tokio::test]
async fn an_engine_host_that_panics_frees_its_memory() {
    let dir = tempdir().unwrap();
    let runtime = small_runtime(dir.path()).await;
    for name in ["one", "two"] {
        let task = runtime.submit(submission(role(&format!("of-{name}")), name)).await.unwrap();
        assert_eq!(end(&all_events(&runtime, task).await), ("completed", format!("<{name}>")));
    }
    for name in ["one", "two"] {
        runtime.panic(ChildId::EngineHost(runtime.catalog().model(name).unwrap().clone()));
    }
    let task = runtime.submit(submission(role("of-three"), "three")).await.unwrap();
    assert_eq!(end(&all_events(&runtime, task).await), ("completed", "<three>".to_owned()));
}

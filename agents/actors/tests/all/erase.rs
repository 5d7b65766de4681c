//! Erasing tasks: those that run are ended first, nothing of them is remembered, and what was interrupted is completed.

use std::path::Path;

use artel_actors::{EngineReport, EngineState, EraseReport, Error, Options, Runtime};
use artel_feedback::{FeedbackRecord, FeedbackStore};
use artel_journal::{Erasure, Journal, TaskStatus};
use artel_task::event::{ERASED_TEXT, ResultSource};
use artel_task::{CallerName, Event, EventKind, RequestId, RoleName, TaskId};
use tempfile::tempdir;

use super::fixtures::*;
use super::held_engine::{self, HeldEngine};

const GRAPHS: &str = "---
graph: form
description: A person decides.
start: sign
nodes:
  sign: {ask: {message: 'Sign {{ input }}?'}, next: done}
---
graph: cached
description: Remembers what it was told.
start: a
nodes:
  a: {role: sailor, cache: true, next: done}
";

async fn start(dir: &Path, loader: &ScriptedLoader) -> Runtime {
    runtime_with(dir, loader, Options::default(), parse(&format!("{CATALOG}{GRAPHS}"))).await
}

/// Submits a task that waits for a person, and waits until it does.
async fn form(runtime: &Runtime, input: &str) -> TaskId {
    let task = runtime.submit(submission(graph("form"), input)).await.unwrap();
    wait_for_events(runtime, task, 1, |kind| matches!(kind, EventKind::Waiting { .. })).await;
    task
}

async fn run(runtime: &Runtime, name: &str, input: &str) -> (TaskId, Vec<Event>) {
    let task = runtime.submit(submission(graph(name), input)).await.unwrap();
    (task, all_events(runtime, task).await)
}

fn has_text(events: &[Event], text: &str) -> bool {
    events.iter().any(|event| serde_json::to_string(&event.kind).unwrap().contains(text))
}

fn source(events: &[Event]) -> Option<ResultSource> {
    events.iter().find_map(|event| match &event.kind {
        EventKind::StepFinished { source, .. } => Some(*source),
        _ => None,
    })
}

#[tokio::test]
async fn a_task_that_runs_is_ended_and_its_request_id_is_free_again() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader::gated();
    let runtime = start(dir.path(), &loader).await;
    let request_id = RequestId::parse("again");
    let submission = artel_actors::Submission { request_id, ..submission(role("sailor"), "kanarienvogel") };
    let task = runtime.submit(submission.clone()).await.unwrap();
    wait_for_events(&runtime, task, 1, is_started).await;
    let other = form(&runtime, "zaunkoenig").await;
    // The engine forgets between two batches: the one that is held goes on once the task has ended.
    let opening = tokio::spawn({
        let (runtime, gate) = (runtime.clone(), loader.gate.clone());
        async move {
            all_events(&runtime, task).await;
            gate.open();
        }
    });
    let report = runtime.erase(vec![Erasure::Task(task)]).await.unwrap();
    opening.await.unwrap();
    assert_eq!(report, EraseReport { tasks: 1, cancelled: 1, ..EraseReport::default() });
    let events = all_events(&runtime, task).await;
    assert_eq!(end(&events), ("cancelled", ERASED_TEXT.to_owned()));
    assert!(!has_text(&events, "kanarienvogel") && events.len() > 2, "{events:?}");
    assert_ne!(runtime.submit(submission).await.unwrap(), task);
    assert!(has_text(&runtime.history(other).await.unwrap(), "zaunkoenig"), "another task is as it was");
    assert_eq!(runtime.summary(other).await.unwrap().unwrap().status, TaskStatus::Running);
}

#[tokio::test]
async fn an_answer_that_was_erased_is_not_found_in_the_response_cache() {
    let dir = tempdir().unwrap();
    let runtime = start(dir.path(), &ScriptedLoader::open()).await;
    let (first, events) = run(&runtime, "cached", "kanarienvogel").await;
    assert_eq!(source(&events), Some(ResultSource::Run));
    let (_, events) = run(&runtime, "cached", "kanarienvogel").await;
    assert_eq!(source(&events), Some(ResultSource::Cache));
    runtime.erase(vec![Erasure::Task(first)]).await.unwrap();
    let (_, events) = run(&runtime, "cached", "kanarienvogel").await;
    assert_eq!(source(&events), Some(ResultSource::Run));
}

#[tokio::test]
async fn an_erase_of_an_owner_means_the_tasks_that_were_there() {
    let dir = tempdir().unwrap();
    let runtime = start(dir.path(), &ScriptedLoader::open()).await;
    let alice = CallerName::parse("alice").unwrap();
    let of_alice = |input: &str| artel_actors::Submission { owner: alice.clone(), ..submission(graph("form"), input) };
    let own = runtime.submit(of_alice("kanarienvogel")).await.unwrap();
    let other = runtime.submit(submission(graph("form"), "zaunkoenig")).await.unwrap();
    let asked_at = artel_task::event::Timestamp(own.unix_millis());
    let later = loop {
        let later = runtime.submit(of_alice("later")).await.unwrap();
        if later.unix_millis() > own.unix_millis() {
            break later;
        }
    };
    let erasure = Erasure::Owner { name: alice.clone(), until: asked_at };
    assert!(runtime.erase(vec![erasure]).await.unwrap().tasks >= 1);
    assert!(!has_text(&runtime.history(own).await.unwrap(), "kanarienvogel"));
    assert!(has_text(&runtime.history(later).await.unwrap(), "later"));
    assert!(has_text(&runtime.history(other).await.unwrap(), "zaunkoenig"));
}

#[tokio::test]
async fn what_an_earlier_run_was_asked_to_erase_is_erased_before_tasks_are_resumed() {
    let dir = tempdir().unwrap();
    let runtime = start(dir.path(), &ScriptedLoader::open()).await;
    let (open, other) = (form(&runtime, "kanarienvogel").await, form(&runtime, "zaunkoenig").await);
    let (ended, _) = run(&runtime, "cached", "kanarienvogel").await;
    runtime.drain(std::time::Duration::ZERO).await;
    let journal = Journal::open(dir.path(), artel_journal::Options::default()).await.unwrap();
    journal.begin_erasures(vec![Erasure::Task(open), Erasure::Task(ended)]).await.unwrap();
    journal.close().await;

    let runtime = start(dir.path(), &ScriptedLoader::open()).await;
    for task in [open, ended] {
        let events = all_events(&runtime, task).await;
        assert!(!has_text(&events, "kanarienvogel"), "{events:?}");
    }
    assert_eq!(end(&all_events(&runtime, open).await).0, "cancelled");
    assert!(matches!(runtime.cancel(other, "enough").await, Ok(())), "another task was resumed");
    runtime.drain(std::time::Duration::ZERO).await;
    let journal = Journal::open(dir.path(), artel_journal::Options::default()).await.unwrap();
    assert!(journal.erasures().await.unwrap().is_empty(), "it is complete");
}

#[tokio::test]
async fn an_erased_task_is_not_forked() {
    let dir = tempdir().unwrap();
    let runtime = start(dir.path(), &ScriptedLoader::open()).await;
    let (task, _) = run(&runtime, "cached", "kanarienvogel").await;
    runtime.erase(vec![Erasure::Task(task)]).await.unwrap();
    let fork = artel_actors::Fork {
        task,
        from_step: None,
        use_current_catalog: true,
        request_id: None,
        labels: Default::default(),
        owner: CallerName::owner(),
        trace: None,
        quota: artel_actors::CallerQuota::default(),
    };
    assert!(matches!(runtime.fork(fork).await, Err(Error::Erased(erased)) if erased == task));
}

#[tokio::test]
async fn an_engine_that_is_being_unloaded_and_serves_is_told_to_forget() {
    let (dir, engine) = (tempdir().unwrap(), HeldEngine::new());
    let runtime = held_engine::start(dir.path(), &engine, parse(&format!("{CATALOG}{GRAPHS}"))).await;
    let running = runtime.submit(submission(role("sailor"), "zaunkoenig")).await.unwrap();
    let started = engine.started(1).await;
    let erased = form(&runtime, "kanarienvogel").await;
    let unloading = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.unload("talk", false).await }
    });
    let is_draining = |report: &EngineReport| report.id == "talk" && report.state == EngineState::Draining;
    while !runtime.engines().await.unwrap().iter().any(is_draining) {}
    let report = runtime.erase(vec![Erasure::Task(erased)]).await.unwrap();
    assert_eq!((report.tasks, engine.forgets()), (1, 1));
    engine.answer(&started[0].0);
    assert_eq!(end(&all_events(&runtime, running).await).0, "completed");
    engine.end();
    unloading.await.unwrap().unwrap();
    runtime.erase(vec![Erasure::Task(running)]).await.unwrap();
    assert_eq!(engine.forgets(), 1, "it has ended");
}

#[tokio::test]
async fn what_fails_keeps_nothing_else_from_being_erased() {
    let dir = tempdir().unwrap();
    let prefixes = dir.path().join("prefixes");
    // A directory is not deleted as a file is.
    std::fs::create_dir_all(prefixes.join("0-0.prefix")).unwrap();
    let feedback = FeedbackStore::open(dir.path()).unwrap();
    let options =
        Options { feedback: Some(feedback.clone()), prefix_cache_dir: Some(prefixes.clone()), ..Options::default() };
    let catalog = parse(&format!("{CATALOG}{GRAPHS}"));
    let runtime = runtime_with(dir.path(), &ScriptedLoader::open(), options, catalog).await;
    let (task, _) = run(&runtime, "cached", "kanarienvogel").await;
    let (name, owner) = (RoleName::parse("sailor").unwrap(), CallerName::owner());
    let text = "kanarienvogel".to_owned();
    let (step, caller) = ("a".to_owned(), owner.clone());
    let record = FeedbackRecord { task, step, text, chosen: name, role: None, comment: String::new(), owner, caller };
    feedback.append(record).unwrap();
    let failed = runtime.erase(vec![Erasure::Task(task)]).await;
    assert!(matches!(&failed, Err(Error::EraseIncomplete(reason)) if reason.contains("prefix files")), "{failed:?}");
    assert!(feedback.records(None, 0, 9).unwrap().is_empty());
    assert!(!has_text(&runtime.history(task).await.unwrap(), "kanarienvogel"));
    for file in std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
    {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(13).any(|part| part == b"kanarienvogel"), "{}", file.display());
    }
    std::fs::remove_dir(prefixes.join("0-0.prefix")).unwrap();
    runtime.drain(std::time::Duration::ZERO).await;
    let runtime = start(dir.path(), &ScriptedLoader::open()).await;
    runtime.drain(std::time::Duration::ZERO).await;
    let journal = Journal::open(dir.path(), artel_journal::Options::default()).await.unwrap();
    assert!(journal.erasures().await.unwrap().is_empty(), "the next start has completed it");
}

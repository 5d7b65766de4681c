//! A reload that changes the limits of a role while its steps run and wait.

use std::collections::BTreeMap;

use artel_actors::Runtime;
use artel_roles::Catalog;
use artel_task::{EventKind, TaskId};
use tempfile::tempdir;

use super::fixtures::{all_events, end, graph, parse, role, submission, wait_for_events};
use super::held_engine::{HeldEngine, start};

/// A graph of two steps of one role, which runs so many at once.
fn worker(concurrency: u32) -> Catalog {
    parse(&format!(
        "model: talk\nfile: talk.gguf\n---\nrole: worker\ndescription: D.\nmodel: talk\nprompt: P.\n\
         limits: {{concurrency: {concurrency}, queue: 64}}\n---\n\
         graph: twice\ndescription: D.\nstart: one\nnodes:\n  \
         one: {{role: worker, message: '{{{{ task.input }}}}1', next: two}}\n  \
         two: {{role: worker, message: '{{{{ task.input }}}}2', next: done}}\n"
    ))
}

async fn submit(runtime: &Runtime, input: &str) -> TaskId {
    runtime.submit(submission(graph("twice"), input)).await.unwrap()
}

/// Replaces the catalog; when this returns, all actors know it.
async fn reload(runtime: &Runtime, catalog: Catalog) {
    runtime.replace_catalog(catalog, None).await.unwrap();
    // The supervisor answers after it has replaced the catalog.
    runtime.engines().await.unwrap();
}

fn is_finished(kind: &EventKind) -> bool {
    matches!(kind, EventKind::StepFinished { .. })
}

fn messages(started: &[(String, usize)]) -> Vec<&str> {
    started.iter().map(|(message, _)| message.as_str()).collect()
}

#[tokio::test]
async fn a_raised_concurrency_starts_the_steps_that_wait() {
    let (dir, engine) = (tempdir().unwrap(), HeldEngine::new());
    let runtime = start(dir.path(), &engine, worker(1)).await;
    let mut tasks = Vec::new();
    for input in ["a", "b", "c"] {
        tasks.push(submit(&runtime, input).await);
    }
    let first = engine.started(1).await;
    assert_eq!((first.len(), first[0].1), (1, 1));
    reload(&runtime, worker(3)).await;
    let started = engine.started(3).await;
    assert_eq!(started[2].1, 3, "all run, though nothing has ended: {started:?}");
    let mut all = messages(&started);
    all.sort_unstable();
    assert_eq!(all, ["a1", "b1", "c1"]);
    // The steps of the old catalog that follow do not lower it again.
    for message in ["a1", "b1", "c1"] {
        engine.answer(message);
    }
    let started = engine.started(6).await;
    assert_eq!(started[5].1, 3, "{started:?}");
    for message in ["a2", "b2", "c2"] {
        engine.answer(message);
    }
    for task in tasks {
        assert_eq!(end(&all_events(&runtime, task).await).0, "completed");
    }
}

#[tokio::test]
async fn a_lowered_concurrency_lets_running_steps_end_and_starts_no_more_than_it_allows() {
    let (dir, engine) = (tempdir().unwrap(), HeldEngine::new());
    let runtime = start(dir.path(), &engine, worker(3)).await;
    let mut tasks = BTreeMap::new();
    for input in ["a", "b", "c", "d", "e"] {
        tasks.insert(input, submit(&runtime, input).await);
    }
    let before = engine.started(3).await;
    assert_eq!(before[2].1, 3);
    reload(&runtime, worker(1)).await;
    // A task of the new catalog, beside those of the old one, whose next steps are still to come.
    tasks.insert("f", submit(&runtime, "f").await);
    for message in messages(&before) {
        engine.answer(message);
        wait_for_events(&runtime, tasks[&message[..1]], 1, is_finished).await;
    }
    for count in 4..=12 {
        let started = engine.started(count).await;
        let (message, running) = &started[count - 1];
        assert_eq!((started.len(), *running), (count, 1), "{message} runs alone: {started:?}");
        engine.answer(message);
    }
    for task in tasks.into_values() {
        assert_eq!(end(&all_events(&runtime, task).await).0, "completed");
    }
}

#[tokio::test]
async fn a_model_that_was_changed_is_not_kept_for_the_tasks_that_run_with_it() {
    let catalog = |context: u32| {
        parse(&format!(
            "model: talk\nfile: talk.gguf\ncontext: {context}\nkeep: forever\n---\n\
             role: worker\ndescription: D.\nmodel: talk\nprompt: P.\n"
        ))
    };
    let (dir, engine) = (tempdir().unwrap(), HeldEngine::new());
    let runtime = start(dir.path(), &engine, catalog(512)).await;
    let task = runtime.submit(submission(role("worker"), "a")).await.unwrap();
    engine.started(1).await;
    let kept = async || {
        let engines = runtime.engines().await.unwrap();
        engines.iter().filter(|engine| engine.id.starts_with("talk")).map(|engine| engine.is_kept).collect::<Vec<_>>()
    };
    assert_eq!(kept().await, [true]);
    reload(&runtime, catalog(1024)).await;
    // That of the task comes first, then that of the catalog.
    assert_eq!(kept().await, [false, true]);
    reload(&runtime, catalog(512)).await;
    assert!(kept().await[0]);
    engine.answer("a");
    assert_eq!(end(&all_events(&runtime, task).await).0, "completed");
}

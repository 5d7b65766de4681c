//! Tasks that make no progress: they are resumed three times, the last time one at a time, and then set aside.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use artel_actors::{Answer, Error, LoadProgress, Loader, Options, Runtime, StreamItem};
use artel_engine::{EngineHandle, LoadError};
use artel_journal::{Journal, TaskStatus};
use artel_placement::Placement;
use artel_roles::Model;
use artel_task::{Event, EventKind, Seq, TaskId};
use async_trait::async_trait;
use futures::future::select_all;
use tempfile::tempdir;
use tokio::sync::watch;

use super::fixtures::*;

fn is_resumed(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Resumed)
}

fn is_set_aside(kind: &EventKind) -> bool {
    matches!(kind, EventKind::SetAside { .. })
}

/// Loads nothing until it is opened: a step makes no progress, and stopping waits for no engine.
#[derive(Clone)]
struct HeldLoader(watch::Sender<bool>);

impl HeldLoader {
    fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    fn open(&self) {
        self.0.send_replace(true);
    }
}

#[async_trait]
impl Loader for HeldLoader {
    async fn load(&self, model: &Model, place: &Placement, progress: LoadProgress) -> Result<EngineHandle, LoadError> {
        self.0.subscribe().wait_for(|is_open| *is_open).await.unwrap();
        ScriptedLoader::open().load(model, place, progress).await
    }
}

async fn start(dir: &Path, loader: &HeldLoader, max_tasks: usize) -> Runtime {
    let journal = Journal::open(dir, artel_journal::Options::default()).await.unwrap();
    let options = Options { max_tasks, ..Options::default() };
    Runtime::start(options, catalog(), journal, Arc::new(loader.clone())).await.unwrap()
}

async fn restart(runtime: Runtime, dir: &Path, loader: &HeldLoader) -> Runtime {
    runtime.drain(Duration::ZERO).await;
    drop(runtime);
    start(dir, loader, 9).await
}

async fn count(runtime: &Runtime, task: TaskId, wanted: fn(&EventKind) -> bool) -> usize {
    runtime.history(task).await.unwrap().iter().filter(|event| wanted(&event.kind)).count()
}

#[tokio::test]
async fn of_the_tasks_that_stall_one_at_a_time_has_its_last_chance_and_alone_is_set_aside() {
    let dir = tempdir().unwrap();
    let loader = HeldLoader::new();
    let mut runtime = start(dir.path(), &loader, 9).await;
    let mut tasks = Vec::new();
    for input in ["A", "B", "C"] {
        let task = runtime.submit(submission(role("sailor"), input)).await.unwrap();
        wait_for_events(&runtime, task, 1, is_started).await;
        tasks.push(task);
    }
    for resumes in 1..=2 {
        runtime = restart(runtime, dir.path(), &loader).await;
        for task in &tasks {
            wait_for_events(&runtime, *task, resumes, is_resumed).await;
        }
    }
    runtime = restart(runtime, dir.path(), &loader).await;
    let last_chance = |task: &TaskId| Box::pin(wait_for_events(&runtime, *task, 3, is_resumed));
    let ((), first, _) = select_all(tasks.iter().map(last_chance)).await;
    let poison = tasks.remove(first);
    for task in &tasks {
        assert_eq!(count(&runtime, *task, is_resumed).await, 2, "it waits for its turn");
    }
    // A task that waits for its turn can be cancelled.
    let cancelled = tasks.pop().unwrap();
    runtime.cancel(cancelled, "enough").await.unwrap();
    assert_eq!(end(&all_events(&runtime, cancelled).await), ("cancelled", "enough".to_owned()));

    runtime = restart(runtime, dir.path(), &loader).await;
    wait_for_events(&runtime, poison, 1, is_set_aside).await;
    wait_for_events(&runtime, tasks[0], 3, is_resumed).await;
    let new = runtime.submit(submission(role("sailor"), "D")).await.unwrap();
    loader.open();
    for task in [tasks[0], new] {
        assert_eq!(end(&all_events(&runtime, task).await).0, "completed");
    }
    assert_eq!(runtime.running_tasks(), 0, "a task that is set aside does not run");
    runtime = restart(runtime, dir.path(), &loader).await;
    assert_eq!((runtime.running_tasks(), count(&runtime, poison, is_resumed).await), (0, 3));
    runtime.resume(&artel_actors::Viewer::owner(), poison).await.unwrap();
    assert_eq!(end(&all_events(&runtime, poison).await).0, "completed");
}

#[tokio::test]
async fn a_task_that_is_set_aside_holds_no_place_among_the_open_ones_and_needs_one_to_be_taken_up() {
    let dir = tempdir().unwrap();
    let loader = HeldLoader::new();
    let runtime = start(dir.path(), &loader, 1).await;
    let stalled = runtime.submit(submission(role("sailor"), "A")).await.unwrap();
    wait_for_events(&runtime, stalled, 1, is_started).await;
    runtime.drain(Duration::ZERO).await;
    set_aside(dir.path(), stalled).await;

    let runtime = start(dir.path(), &loader, 1).await;
    let other = runtime.submit(submission(role("sailor"), "B")).await.unwrap();
    assert!(matches!(runtime.resume(&artel_actors::Viewer::owner(), stalled).await, Err(Error::TooManyTasks(1))));
    let summary = runtime.summary(stalled).await.unwrap().unwrap();
    assert_eq!((summary.status, summary.ended), (TaskStatus::SetAside, None));
    let answered = runtime.answer(stalled, None, Answer::Text("yes".to_owned())).await;
    assert!(matches!(answered, Err(Error::SetAside { .. })), "{answered:?}");
    let mut watch = runtime.subscribe(stalled, summary.last_seq, false).await.unwrap();
    loader.open();
    assert_eq!(end(&all_events(&runtime, other).await).0, "completed");
    // Its permit is free once its runner has stopped.
    while let Err(error) = runtime.resume(&artel_actors::Viewer::owner(), stalled).await {
        assert!(matches!(error, Error::TooManyTasks(1)), "{error:?}");
        tokio::task::yield_now().await;
    }
    let next = watch.next().await.unwrap().expect("the stream of a task that is set aside stays open");
    assert!(matches!(next, StreamItem::Event(event) if is_resumed(&event.kind)));
    assert_eq!(end(&all_events(&runtime, stalled).await).0, "completed");
    // It has ended: nothing is left to take up.
    runtime.resume(&artel_actors::Viewer::owner(), stalled).await.unwrap();
    assert!(matches!(
        runtime.resume(&artel_actors::Viewer::owner(), TaskId::from_bytes([9; 16])).await,
        Err(Error::NoTask(_))
    ));
}

/// Appends the event that sets a task aside, as a daemon does.
async fn set_aside(dir: &Path, task: TaskId) {
    let journal = Journal::open(dir, artel_journal::Options::default()).await.unwrap();
    let last = journal.events(task, Seq(0), u32::MAX).await.unwrap().pop().unwrap();
    let kind = EventKind::SetAside { reason: "it stalls".to_owned() };
    journal.append(vec![Event { seq: last.seq.next(), kind, ..last }]).await.unwrap();
    journal.close().await;
}

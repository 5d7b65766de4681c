//! How tasks run, from submission to their end.

use std::time::Duration;

use artel_actors::{
    Candidates, EngineState, Error, Options, PreviewOptions, Runtime, StepProgress, StreamItem, Submission, Target,
};
use artel_engine::LoadError;
use artel_engine::backend::DecodeError;
use artel_task::event::TaskPriority;
use artel_task::{Event, EventKind, Phase, RequestId, Seq};
use tempfile::tempdir;

use super::fixtures::*;

/// The phase of the task's replayed state.
fn phase(runtime: &Runtime, events: &[Event]) -> Phase {
    let EventKind::Accepted(accepted) = &events[0].kind else { panic!("no task") };
    let catalog = runtime.catalog();
    let graph = catalog.graph(accepted.graph.as_str()).unwrap();
    artel_task::State::replay(events, graph.start()).unwrap().phase
}

#[tokio::test]
async fn a_task_runs_through_its_graph_and_its_events_come_in_order() {
    let dir = tempdir().unwrap();
    let runtime = runtime(dir.path(), &ScriptedLoader::open()).await;
    let task = runtime.submit(submission(graph("loop"), "Where?")).await.unwrap();
    let events = all_events(&runtime, task).await;
    assert_eq!(end(&events), ("completed", "again".to_owned()));
    assert!(matches!(phase(&runtime, &events), Phase::Completed(_)));
    let steps: Vec<String> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::StepFinished { step, .. } => Some(step.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(steps, ["write", "check", "write#2", "check#2"]);
    assert_eq!(all_events(&runtime, task).await, events, "a late subscriber receives the same");
}

#[tokio::test]
async fn tokens_arrive_before_the_step_has_finished_and_add_up_to_its_text() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader::gated();
    let runtime = runtime(dir.path(), &loader).await;
    let task = runtime.submit(submission(role("writer"), "Where does it flow?")).await.unwrap();
    let mut subscription = runtime.subscribe(task, Seq(0), true).await.unwrap();
    loader.gate.open();
    let (mut text, mut finished) = (String::new(), false);
    while let Some(item) = subscription.next().await.unwrap() {
        match item {
            StreamItem::Token { text: more, offset, .. } => {
                assert!(!finished);
                assert_eq!(offset, text.len() as u64);
                text.push_str(&more);
            }
            StreamItem::Event(event) => finished |= matches!(event.kind, EventKind::StepFinished { .. }),
            StreamItem::Reasoning { .. } | StreamItem::Progress { .. } => {}
        }
    }
    assert_eq!(text, "<Where does it flow?>");
}

#[tokio::test]
async fn a_router_picks_by_similarity_and_a_preview_agrees() {
    let dir = tempdir().unwrap();
    let runtime = runtime(dir.path(), &ScriptedLoader::open()).await;
    let task = runtime.submit(submission(graph("routed"), "Which sail is good for a storm?")).await.unwrap();
    let events = all_events(&runtime, task).await;
    let routed = events.iter().find_map(|event| match &event.kind {
        EventKind::Routed { decision, .. } => Some(decision.clone()),
        _ => None,
    });
    let decision = routed.unwrap();
    assert_eq!((decision.role.as_str(), decision.otherwise, decision.scores.len()), ("sailor", false, 2));
    assert!(decision.tokens > 0);
    let node = Candidates::Node { graph: "routed".to_owned(), node: "pick".to_owned(), roles: Vec::new() };
    let preview =
        runtime.preview("Which sail is good for a storm?".to_owned(), node, PreviewOptions::default()).await.unwrap();
    assert_eq!((preview.role, preview.scores), (decision.role, decision.scores));
}

#[tokio::test]
async fn branches_run_together_and_meet() {
    let dir = tempdir().unwrap();
    let runtime = runtime(dir.path(), &ScriptedLoader::open()).await;
    let task = runtime.submit(submission(graph("fan"), "x")).await.unwrap();
    let events = all_events(&runtime, task).await;
    assert_eq!(end(&events), ("completed", "<<x> and <x>>".to_owned()));
}

#[tokio::test]
async fn a_cancelled_task_frees_its_cells_and_says_why() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader::gated();
    let runtime = runtime(dir.path(), &loader).await;
    let task = runtime.submit(submission(role("writer"), "A long story")).await.unwrap();
    wait_for_events(&runtime, task, 1, is_started).await;
    loader.gate.pass(3);
    tokio::task::spawn_blocking({
        let gate = loader.gate.clone();
        move || gate.wait_until_held()
    })
    .await
    .unwrap();
    runtime.cancel(task, "enough").await.unwrap();
    assert_eq!(end(&all_events(&runtime, task).await), ("cancelled", "enough".to_owned()));
    // The batch at the gate is the last one with this sequence in it: the next task finds its cells free.
    loader.gate.open();
    let next = runtime.submit(submission(role("writer"), "B")).await.unwrap();
    assert_eq!(end(&all_events(&runtime, next).await).0, "completed");
    let report = runtime.engines().await.unwrap().into_iter().find(|r| r.model.name.as_str() == "talk").unwrap();
    let stats = report.stats.unwrap();
    assert_eq!((stats.running, stats.cancelled, stats.finished), (0, 1, 1), "{stats:?}");
    runtime.cancel(task, "again").await.unwrap();
}

#[tokio::test]
async fn more_steps_than_a_role_takes_wait_and_none_fails() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader::gated();
    let runtime = runtime(dir.path(), &loader).await;
    let mut tasks = Vec::new();
    // One runs, one waits in the role's queue, the others outside of it.
    for n in 0..5 {
        tasks.push(runtime.submit(submission(role("writer"), &format!("{n}"))).await.unwrap());
    }
    loader.gate.open();
    for task in tasks {
        let events = all_events(&runtime, task).await;
        assert_eq!(end(&events).0, "completed");
        assert!(!events.iter().any(|event| matches!(event.kind, EventKind::StepFailed { .. })), "{events:?}");
    }
}

#[tokio::test]
async fn a_step_whose_batch_fails_once_is_retried() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader {
        fault_hook: Some(std::sync::Arc::new(|n, _| (n == 1).then(|| DecodeError::Batch("hiccup".to_owned())))),
        ..ScriptedLoader::open()
    };
    let runtime = runtime(dir.path(), &loader).await;
    let task = runtime.submit(submission(role("sailor"), "Go")).await.unwrap();
    let events = all_events(&runtime, task).await;
    assert_eq!(end(&events), ("completed", "<Go>".to_owned()));
    assert_eq!(events.iter().filter(|event| matches!(event.kind, EventKind::StepFailed { .. })).count(), 1);
}

#[tokio::test]
async fn an_engine_that_ends_is_loaded_again_and_its_steps_are_retried() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader {
        fault_hook: Some({
            let once = std::sync::atomic::AtomicBool::new(true);
            std::sync::Arc::new(move |_, _: &[_]| {
                once.swap(false, std::sync::atomic::Ordering::SeqCst).then(|| DecodeError::Fatal("gone".to_owned()))
            })
        }),
        ..ScriptedLoader::open()
    };
    let runtime = runtime(dir.path(), &loader).await;
    let task = runtime.submit(submission(role("sailor"), "Go")).await.unwrap();
    assert_eq!(end(&all_events(&runtime, task).await), ("completed", "<Go>".to_owned()));
    assert_eq!(loader.loads.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_fails_its_tasks_with_the_reason() {
    let dir = tempdir().unwrap();
    let yaml = CATALOG.replace("retries: 2", "retries: 0");
    let loader = ScriptedLoader { load_error: Some(LoadError::permanent("no such file")), ..ScriptedLoader::open() };
    let runtime = runtime_with(dir.path(), &loader, Options::default(), parse(&yaml)).await;
    let task = runtime.submit(submission(role("writer"), "x")).await.unwrap();
    let (word, text) = end(&all_events(&runtime, task).await);
    assert_eq!((word, text.contains("no such file")), ("failed", true), "{text}");
    assert!(text.contains("it is tried again in 1s, at once with `artel load talk`"), "it says what to do: {text}");
    let report = runtime.engines().await.unwrap().into_iter().find(|r| r.model.name.as_str() == "talk").unwrap();
    let EngineState::Failed { reason, retry_after } = report.state else { panic!("{report:?}") };
    assert_eq!((reason.as_str(), retry_after.is_some()), ("no such file", true));
}

#[tokio::test]
async fn the_same_request_is_the_same_task() {
    let dir = tempdir().unwrap();
    let runtime = runtime(dir.path(), &ScriptedLoader::open()).await;
    let mut submission = submission(role("writer"), "x");
    submission.request_id = RequestId::parse("once");
    let first = runtime.submit(submission.clone()).await.unwrap();
    assert_eq!(runtime.submit(submission.clone()).await.unwrap(), first);
    // Nor does it need its role any more.
    runtime.replace_catalog(parse("role: other\ndescription: D.\nmodel: smollm2\nprompt: P.\n"), None).await.unwrap();
    assert_eq!(runtime.submit(submission.clone()).await.unwrap(), first);
    submission.input.push('!');
    let error = runtime.submit(submission).await.unwrap_err();
    assert!(matches!(error, Error::Journal(artel_journal::Error::RequestReused { .. })), "{error}");
}

#[tokio::test]
async fn an_unknown_graph_role_or_task_is_refused() {
    let dir = tempdir().unwrap();
    let runtime = runtime(dir.path(), &ScriptedLoader::open()).await;
    assert!(matches!(runtime.submit(submission(graph("nope"), "x")).await, Err(Error::NoGraph { .. })));
    assert!(matches!(runtime.submit(submission(role("nope"), "x")).await, Err(Error::NoRole { .. })));
    let unknown = artel_task::TaskId::new(1, [1; 10]);
    assert!(matches!(runtime.cancel(unknown, "x").await, Err(Error::NoTask(_))));
    assert!(matches!(runtime.subscribe(unknown, Seq(0), true).await, Err(Error::NoTask(_))));
    let task = runtime.submit(submission(role("writer"), "x")).await.unwrap();
    all_events(&runtime, task).await;
    assert!(matches!(runtime.subscribe(task, Seq(99), true).await, Err(Error::SeqOutOfRange { .. })));
}

#[tokio::test]
async fn no_more_tasks_than_the_limit_are_open() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader::gated();
    let runtime = runtime_with(dir.path(), &loader, Options { max_tasks: 2, ..Options::default() }, catalog()).await;
    let tasks =
        [runtime.submit(submission(role("sailor"), "a")).await, runtime.submit(submission(role("sailor"), "b")).await];
    assert!(matches!(runtime.submit(submission(role("sailor"), "c")).await, Err(Error::TooManyTasks(2))));
    loader.gate.open();
    for task in tasks {
        all_events(&runtime, task.unwrap()).await;
    }
}

#[tokio::test]
async fn a_task_that_a_drain_leaves_continues_under_the_catalog_it_started_with() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader::gated();
    let runtime = runtime(dir.path(), &loader).await;
    let task = runtime.submit(submission(graph("loop"), "Where?")).await.unwrap();
    let single = runtime.submit(submission(role("sailor"), "Go")).await.unwrap();
    wait_for_events(&runtime, task, 1, is_started).await;
    wait_for_events(&runtime, single, 1, is_started).await;
    let mut subscription = runtime.subscribe(task, Seq(2), true).await.unwrap();
    let stopped = {
        let runtime = runtime.clone();
        tokio::spawn(async move { runtime.drain(Duration::ZERO).await })
    };
    // The engine ends when the batch at the gate is through.
    loader.gate.open();
    let left = stopped.await.unwrap();
    assert!(left.unfinished <= 2 && left.overdue.is_empty(), "{left:?}");
    assert!(matches!(runtime.submit(submission(Target::Default, "x")).await, Err(Error::ShuttingDown)));
    let mut last = Seq(2);
    while let Ok(Some(item)) = subscription.next().await {
        if let StreamItem::Event(event) = item {
            last = event.seq;
        }
    }
    // Today's catalog has neither the graph nor the role: the tasks keep theirs.
    let other = "role: other\ndescription: D.\nmodel: smollm2\nprompt: P.\n";
    let again = runtime_with(dir.path(), &ScriptedLoader::open(), Options::default(), parse(other)).await;
    let events = all_events(&again, task).await;
    assert_eq!(end(&events), ("completed", "again".to_owned()));
    assert!(events.iter().any(|event| event.seq > last), "the subscriber had not received the end");
    assert_eq!(end(&all_events(&again, single).await), ("completed", "<Go>".to_owned()));
}

#[tokio::test]
async fn many_cold_questions_embed_each_text_once() {
    let dir = tempdir().unwrap();
    let runtime = runtime(dir.path(), &ScriptedLoader::open()).await;
    let candidates = || Candidates::Roles(vec!["writer".into(), "sailor".into()]);
    let ask = || runtime.preview("Which sail?".to_owned(), candidates(), PreviewOptions::default());
    let decisions = futures::future::join_all((0..20).map(|_| ask())).await;
    let tokens: Vec<u32> = decisions.into_iter().map(|decision| decision.unwrap().tokens).collect();
    let alone = "Which sail?".chars().count() as u32;
    assert_eq!(
        tokens.iter().filter(|tokens| **tokens > alone).count(),
        1,
        "one embedded the texts, the others reused them: {tokens:?}"
    );
}

#[tokio::test]
async fn a_new_catalog_applies_to_new_tasks_and_releases_old_engines() {
    let dir = tempdir().unwrap();
    let runtime = runtime(dir.path(), &ScriptedLoader::open()).await;
    let task = runtime.submit(submission(role("writer"), "x")).await.unwrap();
    all_events(&runtime, task).await;
    let changed = CATALOG.replace("file: talk.gguf", "file: talk2.gguf").replace("role: sailor", "role: pilot");
    let changed = changed.replace("sailor", "pilot");
    let wrong = runtime.replace_catalog(parse(&changed), Some("another")).await;
    assert!(matches!(wrong, Err(Error::CatalogChanged { .. })));
    runtime.replace_catalog(parse(&changed), Some(runtime.catalog().version().as_str())).await.unwrap();
    assert!(matches!(runtime.submit(submission(role("sailor"), "x")).await, Err(Error::NoRole { .. })));
    let task = runtime.submit(submission(role("pilot"), "x")).await.unwrap();
    assert_eq!(end(&all_events(&runtime, task).await), ("completed", "<x>".to_owned()));
}

#[tokio::test]
async fn an_unloaded_engine_is_loaded_again_when_needed() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader::open();
    let runtime = runtime(dir.path(), &loader).await;
    let report = runtime.load("talk").await.unwrap();
    assert_eq!(report.state, EngineState::Ready);
    runtime.unload("talk", false).await.unwrap();
    runtime.unload("talk", true).await.unwrap();
    let task = runtime.submit(submission(role("writer"), "x")).await.unwrap();
    assert_eq!(end(&all_events(&runtime, task).await).0, "completed");
    assert_eq!(loader.loads.load(std::sync::atomic::Ordering::SeqCst), 2);
    assert!(matches!(runtime.load("nope").await, Err(Error::NoModel { .. })));
}

/// Waits until a subscriber of the task receives this queue position.
async fn queued_at(runtime: &Runtime, task: artel_task::TaskId, wanted: u32) {
    let mut subscription = runtime.subscribe(task, Seq(0), true).await.unwrap();
    loop {
        match subscription.next().await.unwrap().expect("the task continues") {
            StreamItem::Progress { progress: StepProgress::Queued { position }, .. } if position == wanted => return,
            _ => {}
        }
    }
}

#[tokio::test]
async fn an_interactive_task_passes_batch_work_that_waits_for_the_same_role() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader::gated();
    let catalog = parse(&CATALOG.replace("queue: 1,", "queue: 8,"));
    let runtime = runtime_with(dir.path(), &loader, Options::default(), catalog).await;
    let batch = |input: &str| Submission { priority: TaskPriority::Batch, ..submission(role("writer"), input) };
    let first = runtime.submit(batch("first")).await.unwrap();
    wait_for_events(&runtime, first, 1, is_started).await;
    let second = runtime.submit(batch("second")).await.unwrap();
    queued_at(&runtime, second, 1).await;
    let interactive = runtime.submit(submission(role("writer"), "a person")).await.unwrap();
    queued_at(&runtime, interactive, 1).await;
    queued_at(&runtime, second, 2).await;
    loader.gate.open();
    for task in [interactive, second, first] {
        assert_eq!(end(&all_events(&runtime, task).await).0, "completed");
    }
}

//! How tasks go.

use std::time::Duration;

use artel_engine::backend::DecodeError;
use artel_task::event::TaskPriority;
use artel_task::{EventKind, Phase, RequestId, Seq};
use tempfile::tempdir;

use super::stage::*;
use crate::{Candidates, EngineState, Error, Listening, Live, Options, Stage, Submission, Target};

#[tokio::test]
async fn a_task_goes_through_its_graph_and_is_watched_in_order() {
    let dir = tempdir().unwrap();
    let crew = crew(dir.path(), &Script::open()).await;
    let task = crew.submit(ask(graph("loop"), "Where?")).await.unwrap();
    let events = to_the_end(&crew, task).await;
    assert_eq!(end(&events), ("completed", "again".to_owned()));
    assert!(matches!(phase(&crew, &events), Phase::Completed(_)));
    let steps: Vec<String> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::StepFinished { step, .. } => Some(step.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(steps, ["write", "check", "write#2", "check#2"]);
    assert_eq!(to_the_end(&crew, task).await, events, "a late watcher hears the same");
}

#[tokio::test]
async fn tokens_are_heard_before_the_step_has_finished_and_add_up_to_its_text() {
    let dir = tempdir().unwrap();
    let script = Script::gated();
    let crew = crew(dir.path(), &script).await;
    let task = crew.submit(ask(role("writer"), "Where does it flow?")).await.unwrap();
    let mut watch = crew.watch(task, Seq(0), true).await.unwrap();
    script.gate.open();
    let (mut text, mut finished) = (String::new(), false);
    while let Some(live) = watch.next().await.unwrap() {
        match live {
            Live::Token { text: more, offset, .. } => {
                assert!(!finished);
                assert_eq!(offset, text.len() as u64);
                text.push_str(&more);
            }
            Live::Event(event) => finished |= matches!(event.kind, EventKind::StepFinished { .. }),
            Live::Progress { .. } => {}
        }
    }
    assert_eq!(text, "<Where does it flow?>");
}

#[tokio::test]
async fn a_router_picks_by_similarity_and_a_preview_agrees() {
    let dir = tempdir().unwrap();
    let crew = crew(dir.path(), &Script::open()).await;
    let task = crew.submit(ask(graph("routed"), "Which sail is good for a storm?")).await.unwrap();
    let events = to_the_end(&crew, task).await;
    let routed = events.iter().find_map(|event| match &event.kind {
        EventKind::Routed { decision, .. } => Some(decision.clone()),
        _ => None,
    });
    let decision = routed.unwrap();
    assert_eq!((decision.role.as_str(), decision.otherwise, decision.scores.len()), ("sailor", false, 2));
    assert!(decision.tokens > 0);
    let node = Candidates::Node { graph: "routed".to_owned(), node: "pick".to_owned(), roles: Vec::new() };
    let preview = crew.preview("Which sail is good for a storm?".to_owned(), node, Listening::default()).await.unwrap();
    assert_eq!((preview.role, preview.scores), (decision.role, decision.scores));
}

#[tokio::test]
async fn branches_run_together_and_meet() {
    let dir = tempdir().unwrap();
    let crew = crew(dir.path(), &Script::open()).await;
    let task = crew.submit(ask(graph("fan"), "x")).await.unwrap();
    let events = to_the_end(&crew, task).await;
    assert_eq!(end(&events), ("completed", "<<x> and <x>>".to_owned()));
}

#[tokio::test]
async fn a_cancelled_task_frees_its_cells_and_says_why() {
    let dir = tempdir().unwrap();
    let script = Script::gated();
    let crew = crew(dir.path(), &script).await;
    let task = crew.submit(ask(role("writer"), "A long story")).await.unwrap();
    heard(&crew, task, 1, is_started).await;
    script.gate.pass(3);
    tokio::task::spawn_blocking({
        let gate = script.gate.clone();
        move || gate.wait_until_held()
    })
    .await
    .unwrap();
    crew.cancel(task, "enough").await.unwrap();
    assert_eq!(end(&to_the_end(&crew, task).await), ("cancelled", "enough".to_owned()));
    // The batch at the gate is the last one with this sequence in it: the next task finds its cells free.
    script.gate.open();
    let next = crew.submit(ask(role("writer"), "B")).await.unwrap();
    assert_eq!(end(&to_the_end(&crew, next).await).0, "completed");
    let report = crew.engines().await.unwrap().into_iter().find(|r| r.model.name.as_str() == "talk").unwrap();
    let stats = report.stats.unwrap();
    assert_eq!((stats.running, stats.cancelled, stats.finished), (0, 1, 1), "{stats:?}");
    crew.cancel(task, "again").await.unwrap();
}

#[tokio::test]
async fn more_steps_than_a_role_takes_wait_and_none_fails() {
    let dir = tempdir().unwrap();
    let script = Script::gated();
    let crew = crew(dir.path(), &script).await;
    let mut tasks = Vec::new();
    // One runs, one waits in the role's queue, the others outside of it.
    for n in 0..5 {
        tasks.push(crew.submit(ask(role("writer"), &format!("{n}"))).await.unwrap());
    }
    script.gate.open();
    for task in tasks {
        let events = to_the_end(&crew, task).await;
        assert_eq!(end(&events).0, "completed");
        assert!(!events.iter().any(|event| matches!(event.kind, EventKind::StepFailed { .. })), "{events:?}");
    }
}

#[tokio::test]
async fn a_model_that_fails_once_is_asked_again() {
    let dir = tempdir().unwrap();
    let script = Script {
        accident: Some(std::sync::Arc::new(|n, _| (n == 1).then(|| DecodeError::Batch("hiccup".to_owned())))),
        ..Script::open()
    };
    let crew = crew(dir.path(), &script).await;
    let task = crew.submit(ask(role("sailor"), "Go")).await.unwrap();
    let events = to_the_end(&crew, task).await;
    assert_eq!(end(&events), ("completed", "<Go>".to_owned()));
    assert_eq!(events.iter().filter(|event| matches!(event.kind, EventKind::StepFailed { .. })).count(), 1);
}

#[tokio::test]
async fn an_engine_that_ends_is_loaded_again_and_its_steps_with_it() {
    let dir = tempdir().unwrap();
    let script = Script {
        accident: Some({
            let once = std::sync::atomic::AtomicBool::new(true);
            std::sync::Arc::new(move |_, _: &[_]| {
                once.swap(false, std::sync::atomic::Ordering::SeqCst).then(|| DecodeError::Fatal("gone".to_owned()))
            })
        }),
        ..Script::open()
    };
    let crew = crew(dir.path(), &script).await;
    let task = crew.submit(ask(role("sailor"), "Go")).await.unwrap();
    assert_eq!(end(&to_the_end(&crew, task).await), ("completed", "<Go>".to_owned()));
    assert_eq!(script.loads.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_fails_its_tasks_with_the_reason() {
    let dir = tempdir().unwrap();
    let yaml = CATALOG.replace("retries: 2", "retries: 0");
    let script = Script { broken: Some("no such file".to_owned()), ..Script::open() };
    let crew = crew_with(dir.path(), &script, Options::default(), parse(&yaml)).await;
    let task = crew.submit(ask(role("writer"), "x")).await.unwrap();
    let (word, text) = end(&to_the_end(&crew, task).await);
    assert_eq!((word, text.contains("no such file")), ("failed", true), "{text}");
    let report = crew.engines().await.unwrap().into_iter().find(|r| r.model.name.as_str() == "talk").unwrap();
    let EngineState::Broken { reason, retry } = report.state else { panic!("{report:?}") };
    assert_eq!((reason.as_str(), retry.is_some()), ("no such file", true));
}

#[tokio::test]
async fn the_same_request_is_the_same_task() {
    let dir = tempdir().unwrap();
    let crew = crew(dir.path(), &Script::open()).await;
    let mut submission = ask(role("writer"), "x");
    submission.request = RequestId::parse("once");
    let first = crew.submit(submission.clone()).await.unwrap();
    assert_eq!(crew.submit(submission.clone()).await.unwrap(), first);
    // Nor does it need its role any more.
    crew.serve(parse("role: other\ndescription: D.\nmodel: smollm2\nprompt: P.\n"), None).await.unwrap();
    assert_eq!(crew.submit(submission.clone()).await.unwrap(), first);
    submission.input.push('!');
    let error = crew.submit(submission).await.unwrap_err();
    assert!(matches!(error, Error::Journal(artel_journal::Error::RequestReused { .. })), "{error}");
}

#[tokio::test]
async fn what_does_not_exist_is_refused_before_it_is_a_task() {
    let dir = tempdir().unwrap();
    let crew = crew(dir.path(), &Script::open()).await;
    assert!(matches!(crew.submit(ask(graph("nope"), "x")).await, Err(Error::NoGraph { .. })));
    assert!(matches!(crew.submit(ask(role("nope"), "x")).await, Err(Error::NoRole { .. })));
    let unknown = artel_task::TaskId::new(1, [1; 10]);
    assert!(matches!(crew.cancel(unknown, "x").await, Err(Error::NoTask(_))));
    assert!(matches!(crew.watch(unknown, Seq(0), true).await, Err(Error::NoTask(_))));
    let task = crew.submit(ask(role("writer"), "x")).await.unwrap();
    to_the_end(&crew, task).await;
    assert!(matches!(crew.watch(task, Seq(99), true).await, Err(Error::SeqOutOfRange { .. })));
}

#[tokio::test]
async fn no_more_tasks_than_the_limit_are_open() {
    let dir = tempdir().unwrap();
    let script = Script::gated();
    let crew = crew_with(dir.path(), &script, Options { tasks: 2, ..Options::default() }, catalog()).await;
    let tasks = [crew.submit(ask(role("sailor"), "a")).await, crew.submit(ask(role("sailor"), "b")).await];
    assert!(matches!(crew.submit(ask(role("sailor"), "c")).await, Err(Error::TooManyTasks(2))));
    script.gate.open();
    for task in tasks {
        to_the_end(&crew, task.unwrap()).await;
    }
}

#[tokio::test]
async fn what_a_drain_leaves_goes_on_under_the_catalog_it_began_with() {
    let dir = tempdir().unwrap();
    let script = Script::gated();
    let crew = crew(dir.path(), &script).await;
    let task = crew.submit(ask(graph("loop"), "Where?")).await.unwrap();
    let single = crew.submit(ask(role("sailor"), "Go")).await.unwrap();
    heard(&crew, task, 1, is_started).await;
    heard(&crew, single, 1, is_started).await;
    let mut watch = crew.watch(task, Seq(2), true).await.unwrap();
    let stopped = {
        let crew = crew.clone();
        tokio::spawn(async move { crew.drain(Duration::ZERO).await })
    };
    // The engine ends when the batch at the gate is through.
    script.gate.open();
    let left = stopped.await.unwrap();
    assert!(left <= 2, "{left}");
    assert!(matches!(crew.submit(ask(Target::Default, "x")).await, Err(Error::ShuttingDown)));
    let mut last = Seq(2);
    while let Ok(Some(live)) = watch.next().await {
        if let Live::Event(event) = live {
            last = event.seq;
        }
    }
    // Today's catalog has neither the graph nor the role: the tasks keep theirs.
    let other = "role: other\ndescription: D.\nmodel: smollm2\nprompt: P.\n";
    let again = crew_with(dir.path(), &Script::open(), Options::default(), parse(other)).await;
    let events = to_the_end(&again, task).await;
    assert_eq!(end(&events), ("completed", "again".to_owned()));
    assert!(events.iter().any(|event| event.seq > last), "the watcher had not heard the end");
    assert_eq!(end(&to_the_end(&again, single).await), ("completed", "<Go>".to_owned()));
}

#[tokio::test]
async fn many_cold_questions_embed_each_text_once() {
    let dir = tempdir().unwrap();
    let crew = crew(dir.path(), &Script::open()).await;
    let candidates = || Candidates::Roles(vec!["writer".into(), "sailor".into()]);
    let ask = || crew.preview("Which sail?".to_owned(), candidates(), Listening::default());
    let decisions = futures::future::join_all((0..20).map(|_| ask())).await;
    let tokens: Vec<u32> = decisions.into_iter().map(|decision| decision.unwrap().tokens).collect();
    let alone = "Which sail?".chars().count() as u32;
    assert_eq!(tokens.iter().filter(|tokens| **tokens > alone).count(), 1, "one learned, the others found: {tokens:?}");
}

#[tokio::test]
async fn a_new_catalog_serves_new_tasks_and_lets_go_of_old_engines() {
    let dir = tempdir().unwrap();
    let crew = crew(dir.path(), &Script::open()).await;
    let task = crew.submit(ask(role("writer"), "x")).await.unwrap();
    to_the_end(&crew, task).await;
    let changed = CATALOG.replace("file: talk.gguf", "file: talk2.gguf").replace("role: sailor", "role: pilot");
    let changed = changed.replace("sailor", "pilot");
    let wrong = crew.serve(parse(&changed), Some("another")).await;
    assert!(matches!(wrong, Err(Error::CatalogChanged { .. })));
    crew.serve(parse(&changed), Some(crew.catalog().version().as_str())).await.unwrap();
    assert!(matches!(crew.submit(ask(role("sailor"), "x")).await, Err(Error::NoRole { .. })));
    let task = crew.submit(ask(role("pilot"), "x")).await.unwrap();
    assert_eq!(end(&to_the_end(&crew, task).await), ("completed", "<x>".to_owned()));
}

#[tokio::test]
async fn an_unloaded_engine_is_loaded_again_when_needed() {
    let dir = tempdir().unwrap();
    let script = Script::open();
    let crew = crew(dir.path(), &script).await;
    let report = crew.load("talk").await.unwrap();
    assert_eq!(report.state, EngineState::Ready);
    crew.unload("talk", false).await.unwrap();
    crew.unload("talk", true).await.unwrap();
    let task = crew.submit(ask(role("writer"), "x")).await.unwrap();
    assert_eq!(end(&to_the_end(&crew, task).await).0, "completed");
    assert_eq!(script.loads.load(std::sync::atomic::Ordering::SeqCst), 2);
    assert!(matches!(crew.load("nope").await, Err(Error::NoModel { .. })));
}

/// The places in the line that a watcher of a task hears of, up to this one.
async fn queued_at(crew: &crate::Crew, task: artel_task::TaskId, wanted: u32) {
    let mut watch = crew.watch(task, Seq(0), true).await.unwrap();
    loop {
        match watch.next().await.unwrap().expect("the task goes on") {
            Live::Progress { stage: Stage::Queued { position }, .. } if position == wanted => return,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_person_passes_batch_work_that_waits_for_the_same_role() {
    let dir = tempdir().unwrap();
    let script = Script::gated();
    let catalog = parse(&CATALOG.replace("queue: 1,", "queue: 8,"));
    let crew = crew_with(dir.path(), &script, Options::default(), catalog).await;
    let batch = |input: &str| Submission { class: TaskPriority::Batch, ..ask(role("writer"), input) };
    let first = crew.submit(batch("first")).await.unwrap();
    heard(&crew, first, 1, is_started).await;
    let second = crew.submit(batch("second")).await.unwrap();
    queued_at(&crew, second, 1).await;
    let person = crew.submit(ask(role("writer"), "a person")).await.unwrap();
    queued_at(&crew, person, 1).await;
    queued_at(&crew, second, 2).await;
    script.gate.open();
    for task in [person, second, first] {
        assert_eq!(end(&to_the_end(&crew, task).await).0, "completed");
    }
}

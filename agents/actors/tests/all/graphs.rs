//! The features of graphs: people, items, sub-graphs, failures; and the control of running tasks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use artel_actors::{Answer, Clock, DrainReport, Error, Fork, Options, Runtime};
use artel_task::event::{FailureCode, ResultSource, Timestamp};
use artel_task::{Event, EventKind, Seq, TaskId};
use serde_json::json;
use tempfile::tempdir;

use super::fixtures::*;

const GRAPHS: &str = "
graph: review
description: A person decides.
start: write
nodes:
  write: {role: sailor, next: confirm}
  confirm:
    ask: {message: 'Is {{ nodes.write.text }} right?', output: {enum: ['yes', 'no']}, deadline: 1h}
    next:
      - {to: finish, when: 'output == \"yes\"'}
      - {to: done}
  finish: {role: sailor, message: 'said {{ nodes.confirm.output }}', next: done}
limits: {time: 1m}
---
graph: lenient
description: A decision with a default.
start: confirm
nodes:
  confirm: {ask: {message: 'Well?', deadline: 1h, otherwise: never mind}, next: done}
---
graph: each
description: Each item goes to the role that fits.
start: route
nodes:
  route: {router: {roles: [writer, sailor]}, for_each: '[\"Where does the river flow?\", \"Which sail for a storm?\"]', next: work}
  work: {role: {from: route}, for_each: '[\"a\", \"b\"]', message: '{{ item }}!', next: done}
---
graph: outer
description: Runs another for each item.
start: all
nodes:
  all: {graph: inner, for_each: '[1, 2, 3]', message: 'item {{ item }}', next: done}
---
graph: inner
description: Two steps.
start: one
nodes:
  one: {role: sailor, message: '{{ task.input }}', next: two}
  two: {role: sailor, message: '{{ nodes.one.text }} in {{ task.graph }}', next: done}
---
graph: rescued
description: Goes on after a failure.
start: fail
fallback: nothing helped
nodes:
  fail: {role: sailor, message: '{{ task.missing }}', on_failure: help, next: done}
  help: {role: sailor, message: '{{ nodes.fail.failure.code }}', next: done}
---
graph: unrescued
description: Falls back.
start: fail
fallback: nothing helped
nodes:
  fail: {role: sailor, message: '{{ task.missing }}', next: done}
---
graph: cached
description: Asks the same.
start: a
nodes:
  a: {role: sailor, message: same, cache: true, next: b}
  b: {role: sailor, message: same, cache: true, next: done}
---
graph: once
description: Must not happen twice.
start: a
nodes:
  a: {role: sailor, effect: at_most_once, next: done}
---
role: lister
description: Counts.
model: talk
prompt: You list.
output: {type: object, required: [items], properties: {items: {type: array, items: {type: integer}}}}
sampling: {max_tokens: 60000}
---
graph: many
description: As many items as it is asked for.
start: list
nodes:
  list: {role: lister, next: work}
  work:
    role: sailor
    for_each: {list: nodes.list.output.items, parallel: 64, at_most: 10000}
    message: x
    next: done
limits: {steps: 20000, tokens: 10000000, time: 1h}
---
graph: pair
description: Two branches.
start: s
nodes:
  s: {router: {roles: [writer]}, next: [left, right]}
  left: {role: sailor, next: done}
  right: {ask: 'Go on?', next: done}
";

fn graphs_catalog() -> artel_roles::Catalog {
    parse(&format!("{CATALOG}---{GRAPHS}"))
}

async fn start(dir: &Path, loader: &ScriptedLoader) -> Runtime {
    runtime_with(dir, loader, Options::default(), graphs_catalog()).await
}

fn is_waiting(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Waiting { .. })
}

async fn submit_and_wait(runtime: &Runtime, name: &str) -> TaskId {
    let task = runtime.submit(submission(graph(name), "Go")).await.unwrap();
    wait_for_events(runtime, task, 1, is_waiting).await;
    task
}

async fn run(runtime: &Runtime, name: &str, input: &str) -> Vec<Event> {
    let task = runtime.submit(submission(graph(name), input)).await.unwrap();
    all_events(runtime, task).await
}

fn text(answer: &str) -> Answer {
    Answer::Text(answer.to_owned())
}

fn sources(events: &[Event]) -> Vec<ResultSource> {
    let source = |event: &Event| match &event.kind {
        EventKind::StepFinished { source, .. } => Some(*source),
        _ => None,
    };
    events.iter().filter_map(source).collect()
}

#[tokio::test]
async fn a_persons_answer_is_accepted_after_a_restart_and_once_only() {
    let dir = tempdir().unwrap();
    let runtime = start(dir.path(), &ScriptedLoader::open()).await;
    let task = submit_and_wait(&runtime, "review").await;
    let bad = runtime.answer(task, None, text("perhaps")).await;
    assert!(matches!(bad, Err(Error::InvalidAnswer(_))), "{bad:?}");
    // Only a person's answer is awaited, so a daemon that stops need not wait: a grace of an hour does not take an hour.
    let drained =
        tokio::time::timeout(Duration::from_secs(60), runtime.drain(Duration::from_secs(3600))).await.unwrap();
    assert_eq!(drained, DrainReport { unfinished: 1, overdue: Vec::new() });
    let runtime = start(dir.path(), &ScriptedLoader::open()).await;
    runtime.answer(task, Some("confirm"), Answer::Json(json!("yes"))).await.unwrap();
    let again = runtime.answer(task, Some("confirm"), text("yes")).await;
    assert!(matches!(again, Err(Error::NotWaiting { .. })), "{again:?}");
    let events = all_events(&runtime, task).await;
    assert_eq!(end(&events), ("completed", "<said yes>".to_owned()));
    let question = events.iter().find_map(|event| match &event.kind {
        EventKind::Waiting { question, schema, .. } => Some((question.clone(), schema.is_some())),
        _ => None,
    });
    assert_eq!(question, Some(("Is <Go> right?".to_owned(), true)));
    assert_eq!(sources(&events), [ResultSource::Run, ResultSource::Person, ResultSource::Run]);
    let late = runtime.answer(task, None, text("yes")).await;
    assert!(matches!(late, Err(Error::NotWaiting { .. })), "{late:?}");
    let unknown = runtime.answer(task, Some("nothing"), text("yes")).await;
    assert!(matches!(unknown, Err(Error::NoStep { .. })), "{unknown:?}");
}

#[tokio::test]
async fn an_answer_after_the_deadline_is_refused() {
    let now = Arc::new(AtomicU64::new(1_000_000));
    let clock = Clock::new({
        let now = now.clone();
        move || Timestamp(now.load(Ordering::SeqCst))
    });
    let dir = tempdir().unwrap();
    let options = Options { clock, ..Options::default() };
    let runtime = runtime_with(dir.path(), &ScriptedLoader::open(), options, graphs_catalog()).await;
    let (strict, lenient) = (submit_and_wait(&runtime, "review").await, submit_and_wait(&runtime, "lenient").await);
    // The hour is over, the limit of a minute is not: the task's clock stood still.
    now.fetch_add(3_600_000, Ordering::SeqCst);
    for task in [strict, lenient] {
        let late = runtime.answer(task, None, text("yes")).await;
        assert!(matches!(late, Err(Error::NotWaiting { .. })), "{late:?}");
    }
    let (word, text) = end(&all_events(&runtime, strict).await);
    assert_eq!((word, text.starts_with("NoAnswer")), ("failed", true), "{text}");
    let events = all_events(&runtime, lenient).await;
    assert_eq!(
        (end(&events), sources(&events)),
        (("completed", "never mind".to_owned()), vec![ResultSource::Otherwise])
    );
}

#[tokio::test]
async fn each_item_goes_to_the_role_that_was_chosen_for_it() {
    let dir = tempdir().unwrap();
    let runtime = start(dir.path(), &ScriptedLoader::open()).await;
    let events = run(&runtime, "each", "x").await;
    assert_eq!(end(&events), ("completed", "<a!>\n\n<b!>".to_owned()));
    let mut roles: Vec<String> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::StepStarted { step, role: Some(role), .. } => Some(format!("{step} {role}")),
            _ => None,
        })
        .collect();
    roles.sort();
    assert_eq!(roles, ["work[0] writer", "work[1] sailor"]);
}

#[tokio::test]
async fn a_sub_graph_is_run_for_each_item() {
    let dir = tempdir().unwrap();
    let runtime = start(dir.path(), &ScriptedLoader::open()).await;
    let (word, text) = end(&run(&runtime, "outer", "x").await);
    let one = |n: u32| format!("<<item {n}> in inner>");
    assert_eq!((word, text), ("completed", [one(1), one(2), one(3)].join("\n\n")));
}

#[tokio::test]
async fn a_failure_takes_its_edge_or_falls_back() {
    let dir = tempdir().unwrap();
    let runtime = start(dir.path(), &ScriptedLoader::open()).await;
    assert_eq!(end(&run(&runtime, "rescued", "x").await), ("completed", "<template>".to_owned()));
    let events = run(&runtime, "unrescued", "x").await;
    let Some(EventKind::Completed { output, instead_of: Some(failure) }) = events.last().map(|event| &event.kind)
    else {
        panic!("{events:?}")
    };
    assert_eq!((output.text.as_str(), failure.code), ("nothing helped", FailureCode::Template));
}

#[tokio::test]
async fn the_same_prompt_is_answered_from_the_cache() {
    let dir = tempdir().unwrap();
    let runtime = start(dir.path(), &ScriptedLoader::open()).await;
    let events = run(&runtime, "cached", "x").await;
    assert_eq!(sources(&events), [ResultSource::Run, ResultSource::Cache]);
    assert_eq!(sources(&run(&runtime, "cached", "y").await), [ResultSource::Cache, ResultSource::Cache]);
    // Another catalog is another question.
    runtime.replace_catalog(parse(&format!("{CATALOG}---{GRAPHS}# changed\n")), None).await.unwrap();
    assert_eq!(sources(&run(&runtime, "cached", "x").await), [ResultSource::Run, ResultSource::Cache]);
}

#[tokio::test]
async fn an_at_most_once_step_is_not_started_again_after_a_restart() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader::gated();
    let runtime = start(dir.path(), &loader).await;
    let task = runtime.submit(submission(graph("once"), "x")).await.unwrap();
    wait_for_events(&runtime, task, 1, is_started).await;
    let stopped = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.drain(Duration::ZERO).await }
    });
    loader.gate.open();
    stopped.await.unwrap();
    let runtime = start(dir.path(), &ScriptedLoader::open()).await;
    let events = all_events(&runtime, task).await;
    // It may just have finished before the engine ended.
    if sources(&events).is_empty() {
        let (word, text) = end(&events);
        assert_eq!((word, text.contains("at_most_once")), ("failed", true), "{text}");
    }
    assert_eq!(events.iter().filter(|event| is_started(&event.kind)).count(), 1);
}

#[tokio::test]
async fn one_step_is_cancelled_and_the_other_branch_continues() {
    let dir = tempdir().unwrap();
    let runtime = start(dir.path(), &ScriptedLoader::open()).await;
    let task = submit_and_wait(&runtime, "pair").await;
    runtime.cancel_step(task, "right", "not needed").await.unwrap();
    assert_eq!(end(&all_events(&runtime, task).await), ("completed", "<Go>".to_owned()));
    runtime.cancel_step(task, "right", "again").await.unwrap();
    assert!(matches!(runtime.cancel_step(task, "nowhere", "x").await, Err(Error::NoStep { .. })));
}

#[tokio::test]
async fn a_cancelled_step_leaves_the_engine() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader::gated();
    let runtime = start(dir.path(), &loader).await;
    let task = runtime.submit(submission(graph("inner"), "A long story")).await.unwrap();
    wait_for_events(&runtime, task, 1, is_started).await;
    tokio::task::spawn_blocking({
        let gate = loader.gate.clone();
        move || gate.wait_until_held()
    })
    .await
    .unwrap();
    runtime.cancel_step(task, "one", "enough").await.unwrap();
    let (word, text) = end(&all_events(&runtime, task).await);
    assert_eq!((word, text.as_str()), ("failed", "Cancelled: enough"));
    loader.gate.open();
    assert_eq!(end(&run(&runtime, "cached", "x").await).0, "completed");
    let report = runtime.engines().await.unwrap().into_iter().find(|r| r.model.name.as_str() == "talk").unwrap();
    assert_eq!(report.stats.map(|stats| (stats.running, stats.cancelled)), Some((0, 1)));
}

#[tokio::test]
async fn a_fork_copies_the_finished_steps_and_continues_from_there() {
    let dir = tempdir().unwrap();
    let runtime = start(dir.path(), &ScriptedLoader::open()).await;
    let old = submit_and_wait(&runtime, "review").await;
    runtime.answer(old, None, text("no")).await.unwrap();
    assert_eq!(end(&all_events(&runtime, old).await), ("completed", "no".to_owned()));
    let fork = |from: Option<&str>, current| Fork {
        task: old,
        from_step: from.map(str::to_owned),
        use_current_catalog: current,
        request_id: artel_task::RequestId::parse("fork"),
        labels: Default::default(),
        owner: artel_task::CallerName::owner(),
        trace: None,
        quota: artel_actors::CallerQuota::default(),
    };
    let new = runtime.fork(fork(Some("confirm"), false)).await.unwrap();
    assert_eq!(runtime.fork(fork(Some("confirm"), false)).await.unwrap(), new, "the same request is the same task");
    assert!(matches!(runtime.fork(fork(None, false)).await, Err(Error::Journal(_))));
    wait_for_events(&runtime, new, 1, is_waiting).await;
    runtime.answer(new, None, text("yes")).await.unwrap();
    let events = all_events(&runtime, new).await;
    assert_eq!(end(&events), ("completed", "<said yes>".to_owned()));
    let EventKind::Accepted(accepted) = &events[0].kind else { panic!() };
    assert_eq!(accepted.forked_from.as_ref().map(|forked| forked.task), Some(old));
    let started = |events: &[Event], step: &str| {
        events
            .iter()
            .filter(|e| matches!(&e.kind, EventKind::StepStarted { step: s, .. } if s.to_string() == step))
            .count()
    };
    assert_eq!((started(&events, "write"), started(&events, "write#1.2")), (1, 0), "a finished step is not run again");
    let other = |from, current| Fork { request_id: None, ..fork(from, current) };
    assert!(matches!(runtime.fork(other(Some("nowhere"), false)).await, Err(Error::NoStep { .. })));
    // Today's catalog has another graph of that name, then none.
    let changed = GRAPHS.replace("message: 'said {{ nodes.confirm.output }}'", "message: changed");
    runtime.replace_catalog(parse(&format!("{CATALOG}---{changed}")), None).await.unwrap();
    for (current, answer) in [(true, "<changed>"), (false, "<said yes>")] {
        let task = runtime.fork(other(Some("confirm"), current)).await.unwrap();
        wait_for_events(&runtime, task, 1, is_waiting).await;
        runtime.answer(task, None, text("yes")).await.unwrap();
        assert_eq!(end(&all_events(&runtime, task).await), ("completed", answer.to_owned()));
    }
    let gone = GRAPHS
        .replace("write: {role", "pen: {role")
        .replace("start: write", "start: pen")
        .replace("nodes.write", "nodes.pen");
    runtime.replace_catalog(parse(&format!("{CATALOG}---{gone}")), None).await.unwrap();
    let incompatible = runtime.fork(other(Some("confirm"), true)).await;
    assert!(matches!(incompatible, Err(Error::ForkIncompatible { .. })), "{incompatible:?}");
    let anew = runtime.fork(other(None, true)).await.unwrap();
    wait_for_events(&runtime, anew, 1, is_waiting).await;
    let mut subscription = runtime.subscribe(anew, Seq(0), true).await.unwrap();
    assert!(subscription.next().await.unwrap().is_some());
    runtime.cancel(anew, "enough").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_items_finish_and_cost_the_same_each() {
    let dir = tempdir().unwrap();
    let runtime = start(dir.path(), &ScriptedLoader::open()).await;
    let bytes = async |items: usize| {
        let events = run(&runtime, "many", &items.to_string()).await;
        assert_eq!(end(&events), ("completed", vec!["<x>"; items].join("\n\n")));
        let sizes = events.iter().filter(|event| !event.kind.is_last());
        sizes.map(|event| serde_json::to_string(&event.kind).unwrap().len()).sum::<usize>() / items
    };
    let (few, many) = (bytes(20).await, bytes(1000).await);
    assert!(many <= few, "{few} bytes an item of few, {many} of many");
}

#[tokio::test]
async fn the_shipped_path_sends_each_step_to_its_expert_and_is_final_when_a_person_says_so() {
    let dir = tempdir().unwrap();
    let runtime = start(dir.path(), &ScriptedLoader::open()).await;
    let task = submit_and_wait(&runtime, "path").await;
    let verdict = |verdict: &str| Answer::Json(json!({"verdict": verdict, "reason": "Shorter."}));
    runtime.answer(task, None, verdict("revise")).await.unwrap();
    wait_for_events(&runtime, task, 2, is_waiting).await;
    runtime.answer(task, Some("confirm#2"), verdict("accept")).await.unwrap();
    let events = all_events(&runtime, task).await;
    assert_eq!(end(&events).0, "completed");
    let count = |wanted: fn(&EventKind) -> bool| events.iter().filter(|event| wanted(&event.kind)).count();
    assert_eq!(count(|kind| matches!(kind, EventKind::Routed { .. })), 3);
    let advised = |kind: &EventKind| matches!(kind, EventKind::StepStarted { step, role: Some(_), .. } if step.visit.node.as_str() == "advise");
    assert_eq!(events.iter().filter(|event| advised(&event.kind)).count(), 3);
}

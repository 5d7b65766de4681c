//! What graphs can say: people, items, sub-graphs, failures; and how tasks are steered.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use artel_task::event::{FailureCode, ResultSource, Timestamp};
use artel_task::{Event, EventKind, Seq, TaskId};
use serde_json::json;
use tempfile::tempdir;

use super::stage::*;
use crate::{Answer, Clock, Crew, Error, Fork, Options};

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
description: Nobody need decide.
start: confirm
nodes:
  confirm: {ask: {message: 'Well?', deadline: 1h, otherwise: never mind}, next: done}
---
graph: each
description: Items go to who fits, each.
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
graph: hopeless
description: Falls back.
start: fail
fallback: nothing helped
nodes:
  fail: {role: sailor, message: '{{ task.missing }}', next: done}
---
graph: kept
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

fn language() -> artel_roles::Catalog {
    parse(&format!("{CATALOG}---{GRAPHS}"))
}

async fn start(dir: &Path, script: &Script) -> Crew {
    crew_with(dir, script, Options::default(), language()).await
}

fn is_waiting(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Waiting { .. })
}

async fn waits(crew: &Crew, name: &str) -> TaskId {
    let task = crew.submit(ask(graph(name), "Go")).await.unwrap();
    heard(crew, task, 1, is_waiting).await;
    task
}

async fn run(crew: &Crew, name: &str, input: &str) -> Vec<Event> {
    let task = crew.submit(ask(graph(name), input)).await.unwrap();
    to_the_end(crew, task).await
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
async fn a_persons_answer_goes_on_after_a_restart_and_counts_once() {
    let dir = tempdir().unwrap();
    let crew = start(dir.path(), &Script::open()).await;
    let task = waits(&crew, "review").await;
    let bad = crew.answer(task, None, text("perhaps")).await;
    assert!(matches!(bad, Err(Error::BadAnswer(_))), "{bad:?}");
    // Nobody but a person is waited for, so a daemon that stops has nothing to wait for: a grace of an hour is no hour.
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), crew.drain(Duration::from_secs(3600))).await.unwrap(), 1);
    let crew = start(dir.path(), &Script::open()).await;
    crew.answer(task, Some("confirm"), Answer::Json(json!("yes"))).await.unwrap();
    let again = crew.answer(task, Some("confirm"), text("yes")).await;
    assert!(matches!(again, Err(Error::NotWaiting { .. })), "{again:?}");
    let events = to_the_end(&crew, task).await;
    assert_eq!(end(&events), ("completed", "<said yes>".to_owned()));
    let question = events.iter().find_map(|event| match &event.kind {
        EventKind::Waiting { question, schema, .. } => Some((question.clone(), schema.is_some())),
        _ => None,
    });
    assert_eq!(question, Some(("Is <Go> right?".to_owned(), true)));
    assert_eq!(sources(&events), [ResultSource::Run, ResultSource::Person, ResultSource::Run]);
    let late = crew.answer(task, None, text("yes")).await;
    assert!(matches!(late, Err(Error::NotWaiting { .. })), "{late:?}");
    let unknown = crew.answer(task, Some("nothing"), text("yes")).await;
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
    let crew = crew_with(dir.path(), &Script::open(), options, language()).await;
    let (strict, lenient) = (waits(&crew, "review").await, waits(&crew, "lenient").await);
    // The hour is over, the limit of a minute is not: the task's clock stood still.
    now.fetch_add(3_600_000, Ordering::SeqCst);
    for task in [strict, lenient] {
        let late = crew.answer(task, None, text("yes")).await;
        assert!(matches!(late, Err(Error::NotWaiting { .. })), "{late:?}");
    }
    let (word, said) = end(&to_the_end(&crew, strict).await);
    assert_eq!((word, said.starts_with("NoAnswer")), ("failed", true), "{said}");
    let events = to_the_end(&crew, lenient).await;
    assert_eq!((end(&events), sources(&events)), (("completed", "never mind".to_owned()), vec![ResultSource::Otherwise]));
}

#[tokio::test]
async fn each_item_goes_to_the_role_that_was_chosen_for_it() {
    let dir = tempdir().unwrap();
    let crew = start(dir.path(), &Script::open()).await;
    let events = run(&crew, "each", "x").await;
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
    let crew = start(dir.path(), &Script::open()).await;
    let (word, said) = end(&run(&crew, "outer", "x").await);
    let one = |n: u32| format!("<<item {n}> in inner>");
    assert_eq!((word, said), ("completed", [one(1), one(2), one(3)].join("\n\n")));
}

#[tokio::test]
async fn a_failure_takes_its_way_or_falls_back() {
    let dir = tempdir().unwrap();
    let crew = start(dir.path(), &Script::open()).await;
    assert_eq!(end(&run(&crew, "rescued", "x").await), ("completed", "<template>".to_owned()));
    let events = run(&crew, "hopeless", "x").await;
    let Some(EventKind::Completed { output, instead_of: Some(failure) }) = events.last().map(|event| &event.kind) else {
        panic!("{events:?}")
    };
    assert_eq!((output.text.as_str(), failure.code), ("nothing helped", FailureCode::Template));
}

#[tokio::test]
async fn the_same_words_are_answered_from_the_cache() {
    let dir = tempdir().unwrap();
    let crew = start(dir.path(), &Script::open()).await;
    let events = run(&crew, "kept", "x").await;
    assert_eq!(sources(&events), [ResultSource::Run, ResultSource::Cache]);
    assert_eq!(sources(&run(&crew, "kept", "y").await), [ResultSource::Cache, ResultSource::Cache]);
    // Another catalog is another question.
    crew.serve(parse(&format!("{CATALOG}---{GRAPHS}# changed\n")), None).await.unwrap();
    assert_eq!(sources(&run(&crew, "kept", "x").await), [ResultSource::Run, ResultSource::Cache]);
}

#[tokio::test]
async fn what_may_happen_once_is_not_begun_again_after_a_restart() {
    let dir = tempdir().unwrap();
    let script = Script::gated();
    let crew = start(dir.path(), &script).await;
    let task = crew.submit(ask(graph("once"), "x")).await.unwrap();
    heard(&crew, task, 1, is_started).await;
    let stopped = tokio::spawn({
        let crew = crew.clone();
        async move { crew.drain(Duration::ZERO).await }
    });
    script.gate.open();
    stopped.await.unwrap();
    let crew = start(dir.path(), &Script::open()).await;
    let events = to_the_end(&crew, task).await;
    // It may just have finished before the engine ended.
    if sources(&events).is_empty() {
        let (word, said) = end(&events);
        assert_eq!((word, said.contains("at_most_once")), ("failed", true), "{said}");
    }
    assert_eq!(events.iter().filter(|event| is_started(&event.kind)).count(), 1);
}

#[tokio::test]
async fn one_step_is_cancelled_and_the_other_branch_goes_on() {
    let dir = tempdir().unwrap();
    let crew = start(dir.path(), &Script::open()).await;
    let task = waits(&crew, "pair").await;
    crew.cancel_step(task, "right", "not needed").await.unwrap();
    assert_eq!(end(&to_the_end(&crew, task).await), ("completed", "<Go>".to_owned()));
    crew.cancel_step(task, "right", "again").await.unwrap();
    assert!(matches!(crew.cancel_step(task, "nowhere", "x").await, Err(Error::NoStep { .. })));
}

#[tokio::test]
async fn a_cancelled_step_leaves_the_engine() {
    let dir = tempdir().unwrap();
    let script = Script::gated();
    let crew = start(dir.path(), &script).await;
    let task = crew.submit(ask(graph("inner"), "A long story")).await.unwrap();
    heard(&crew, task, 1, is_started).await;
    tokio::task::spawn_blocking({
        let gate = script.gate.clone();
        move || gate.wait_until_held()
    })
    .await
    .unwrap();
    crew.cancel_step(task, "one", "enough").await.unwrap();
    let (word, said) = end(&to_the_end(&crew, task).await);
    assert_eq!((word, said.as_str()), ("failed", "Cancelled: enough"));
    script.gate.open();
    assert_eq!(end(&run(&crew, "kept", "x").await).0, "completed");
    let report = crew.engines().await.unwrap().into_iter().find(|r| r.model.name.as_str() == "talk").unwrap();
    assert_eq!(report.stats.map(|stats| (stats.running, stats.cancelled)), Some((0, 1)));
}

#[tokio::test]
async fn a_fork_takes_over_what_was_done_and_goes_on_from_there() {
    let dir = tempdir().unwrap();
    let crew = start(dir.path(), &Script::open()).await;
    let old = waits(&crew, "review").await;
    crew.answer(old, None, text("no")).await.unwrap();
    assert_eq!(end(&to_the_end(&crew, old).await), ("completed", "no".to_owned()));
    let fork = |from: Option<&str>, current| Fork {
        task: old,
        from: from.map(str::to_owned),
        current,
        request: artel_task::RequestId::parse("fork"),
        labels: Default::default(),
    };
    let new = crew.fork(fork(Some("confirm"), false)).await.unwrap();
    assert_eq!(crew.fork(fork(Some("confirm"), false)).await.unwrap(), new, "the same request is the same task");
    assert!(matches!(crew.fork(fork(None, false)).await, Err(Error::Journal(_))));
    heard(&crew, new, 1, is_waiting).await;
    crew.answer(new, None, text("yes")).await.unwrap();
    let events = to_the_end(&crew, new).await;
    assert_eq!(end(&events), ("completed", "<said yes>".to_owned()));
    let EventKind::Accepted(accepted) = &events[0].kind else { panic!() };
    assert_eq!(accepted.forked_from.as_ref().map(|forked| forked.task), Some(old));
    let started = |events: &[Event], step: &str| {
        events.iter().filter(|e| matches!(&e.kind, EventKind::StepStarted { step: s, .. } if s.to_string() == step)).count()
    };
    assert_eq!((started(&events, "write"), started(&events, "write#1.2")), (1, 0), "what was done is not done again");
    let other = |from, current| Fork { request: None, ..fork(from, current) };
    assert!(matches!(crew.fork(other(Some("nowhere"), false)).await, Err(Error::NoStep { .. })));
    // Today's catalog has another graph of that name, then none.
    let changed = GRAPHS.replace("message: 'said {{ nodes.confirm.output }}'", "message: changed");
    crew.serve(parse(&format!("{CATALOG}---{changed}")), None).await.unwrap();
    for (current, said) in [(true, "<changed>"), (false, "<said yes>")] {
        let task = crew.fork(other(Some("confirm"), current)).await.unwrap();
        heard(&crew, task, 1, is_waiting).await;
        crew.answer(task, None, text("yes")).await.unwrap();
        assert_eq!(end(&to_the_end(&crew, task).await), ("completed", said.to_owned()));
    }
    let gone = GRAPHS
        .replace("write: {role", "pen: {role")
        .replace("start: write", "start: pen")
        .replace("nodes.write", "nodes.pen");
    crew.serve(parse(&format!("{CATALOG}---{gone}")), None).await.unwrap();
    let unsuitable = crew.fork(other(Some("confirm"), true)).await;
    assert!(matches!(unsuitable, Err(Error::Unsuitable { .. })), "{unsuitable:?}");
    let anew = crew.fork(other(None, true)).await.unwrap();
    heard(&crew, anew, 1, is_waiting).await;
    let mut watch = crew.watch(anew, Seq(0), true).await.unwrap();
    assert!(watch.next().await.unwrap().is_some());
    crew.cancel(anew, "enough").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_items_finish_and_cost_the_same_each() {
    let dir = tempdir().unwrap();
    let crew = start(dir.path(), &Script::open()).await;
    let bytes = async |items: usize| {
        let events = run(&crew, "many", &items.to_string()).await;
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
    let crew = start(dir.path(), &Script::open()).await;
    let task = waits(&crew, "path").await;
    let verdict = |verdict: &str| Answer::Json(json!({"verdict": verdict, "reason": "Shorter."}));
    crew.answer(task, None, verdict("revise")).await.unwrap();
    heard(&crew, task, 2, is_waiting).await;
    crew.answer(task, Some("confirm#2"), verdict("accept")).await.unwrap();
    let events = to_the_end(&crew, task).await;
    assert_eq!(end(&events).0, "completed");
    let count = |wanted: fn(&EventKind) -> bool| events.iter().filter(|event| wanted(&event.kind)).count();
    assert_eq!(count(|kind| matches!(kind, EventKind::Routed { .. })), 3);
    let advised = |kind: &EventKind| matches!(kind, EventKind::StepStarted { step, role: Some(_), .. } if step.visit.node.as_str() == "advise");
    assert_eq!(events.iter().filter(|event| advised(&event.kind)).count(), 3);
}

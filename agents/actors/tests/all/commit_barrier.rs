//! What a step computes and publishes while its start is being committed.

use std::sync::Arc;

use artel_actors::{Options, StreamItem};
use artel_task::{EventKind, Seq};
use futures::FutureExt;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tempfile::tempdir;
use tokio::sync::mpsc;

use super::fixtures::*;

const TWO: &str = "
graph: two
description: Two follow one.
start: write
result: both
nodes:
  write: {role: writer, next: [again, once]}
  again: {role: sailor, message: pure, next: both}
  once: {role: sailor, effect: at_most_once, message: effect, next: both}
  both: {role: sailor, join: all, message: '{{ nodes.again.text }}{{ nodes.once.text }}', next: done}
";

/// The step of an item.
fn step_of(item: &StreamItem) -> Option<String> {
    match item {
        StreamItem::Token { step, .. }
        | StreamItem::Reasoning { step, .. }
        | StreamItem::ToolCall { step, .. }
        | StreamItem::Progress { step, .. } => Some(step.to_string()),
        StreamItem::Event(event) => match &event.kind {
            EventKind::StepStarted { step, .. } | EventKind::StepFinished { step, .. } => Some(step.to_string()),
            _ => None,
        },
    }
}

#[tokio::test]
async fn a_step_is_computed_and_not_published_while_its_start_is_being_committed() {
    let dir = tempdir().unwrap();
    let (computed, mut batches) = mpsc::unbounded_channel();
    let fault_hook = move |_, batch: &[artel_engine::backend::BatchToken]| {
        let text = batch.iter().filter_map(|entry| char::from_u32(entry.token.0.cast_unsigned())).collect::<String>();
        // The test may be over.
        let _ = computed.send(text);
        None
    };
    let loader = ScriptedLoader { fault_hook: Some(Arc::new(fault_hook)), ..ScriptedLoader::gated() };
    let runtime = runtime_with(dir.path(), &loader, Options::default(), parse(&format!("{CATALOG}---{TWO}"))).await;
    let task = runtime.submit(submission(graph("two"), "Where?")).await.unwrap();
    let mut subscription = runtime.subscribe(task, Seq(0), true).await.unwrap();
    let mut received = Vec::new();
    while !received.iter().any(|item| matches!(item, StreamItem::Event(event) if is_started(&event.kind))) {
        received.extend(subscription.next().await.unwrap());
    }

    // The journal waits for another connection that writes to its file.
    let options = SqliteConnectOptions::new().filename(dir.path().join("journal.sqlite"));
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    loader.gate.open();
    let mut seen = String::new();
    while !seen.contains("pure\n") {
        seen += &batches.recv().await.unwrap();
    }
    // It has started its answer.
    for _ in 0.."<pure".len() {
        seen += &batches.recv().await.unwrap();
    }
    assert!(!seen.contains("effect"), "a step that may start only once waits for the disk: {seen}");
    while let Some(item) = subscription.next().now_or_never() {
        received.extend(item.unwrap());
    }
    let others: Vec<_> = received.iter().filter(|item| step_of(item).is_some_and(|step| step != "write")).collect();
    assert!(others.is_empty(), "{others:?}");

    lock.rollback().await.unwrap();
    while let Some(item) = subscription.next().await.unwrap() {
        received.push(item);
    }
    for step in ["again", "once", "both"] {
        let first = received.iter().find(|item| step_of(item).as_deref() == Some(step)).unwrap();
        assert!(matches!(first, StreamItem::Event(event) if is_started(&event.kind)), "{first:?}");
    }
    let events = received.iter().filter_map(|item| match item {
        StreamItem::Event(event) => Some(artel_task::Event::clone(event)),
        _ => None,
    });
    assert_eq!(end(&events.collect::<Vec<_>>()), ("completed", "<<pure><effect>>".to_owned()));
}

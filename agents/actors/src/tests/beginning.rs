//! What is done and heard of a step while its beginning is being written.

use std::sync::Arc;

use artel_task::{EventKind, Seq};
use futures::FutureExt;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tempfile::tempdir;
use tokio::sync::mpsc;

use super::stage::*;
use crate::{Live, Options};

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

/// Of which step it is.
fn of(live: &Live) -> Option<String> {
    match live {
        Live::Token { step, .. } | Live::Progress { step, .. } => Some(step.to_string()),
        Live::Event(event) => match &event.kind {
            EventKind::StepStarted { step, .. } | EventKind::StepFinished { step, .. } => Some(step.to_string()),
            _ => None,
        },
    }
}

#[tokio::test]
async fn a_step_works_and_is_not_heard_of_while_its_beginning_is_being_written() {
    let dir = tempdir().unwrap();
    let (computed, mut batches) = mpsc::unbounded_channel();
    let accident = move |_, batch: &[artel_engine::backend::BatchToken]| {
        let text = batch.iter().filter_map(|entry| char::from_u32(entry.token.0.cast_unsigned())).collect::<String>();
        // The test may be over.
        let _ = computed.send(text);
        None
    };
    let script = Script { accident: Some(Arc::new(accident)), ..Script::gated() };
    let crew = crew_with(dir.path(), &script, Options::default(), parse(&format!("{CATALOG}---{TWO}"))).await;
    let task = crew.submit(ask(graph("two"), "Where?")).await.unwrap();
    let mut watch = crew.watch(task, Seq(0), true).await.unwrap();
    let mut heard = Vec::new();
    while !heard.iter().any(|live| matches!(live, Live::Event(event) if is_started(&event.kind))) {
        heard.extend(watch.next().await.unwrap());
    }

    // The journal waits for whoever writes to its file.
    let options = SqliteConnectOptions::new().filename(dir.path().join("journal.sqlite"));
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    script.gate.open();
    let mut seen = String::new();
    while !seen.contains("pure\n") {
        seen += &batches.recv().await.unwrap();
    }
    // It has begun its answer.
    for _ in 0.."<pure".len() {
        seen += &batches.recv().await.unwrap();
    }
    assert!(!seen.contains("effect"), "who may begin but once waits for the disk: {seen}");
    while let Some(live) = watch.next().now_or_never() {
        heard.extend(live.unwrap());
    }
    let others: Vec<_> = heard.iter().filter(|live| of(live).is_some_and(|step| step != "write")).collect();
    assert!(others.is_empty(), "{others:?}");

    lock.rollback().await.unwrap();
    while let Some(live) = watch.next().await.unwrap() {
        heard.push(live);
    }
    for step in ["again", "once", "both"] {
        let first = heard.iter().find(|live| of(live).as_deref() == Some(step)).unwrap();
        assert!(matches!(first, Live::Event(event) if is_started(&event.kind)), "{first:?}");
    }
    let events = heard.iter().filter_map(|live| match live {
        Live::Event(event) => Some(artel_task::Event::clone(event)),
        _ => None,
    });
    assert_eq!(end(&events.collect::<Vec<_>>()), ("completed", "<<pure><effect>>".to_owned()));
}

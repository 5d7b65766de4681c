//! `cargo xtask bench`: 50,000 short tasks through the real daemon on a scripted engine, of which the journal is to keep 1,000.
//! Its size over time is told, and must be flat.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use artel_tests::{Daemon, ask, daemon};
use nix::sys::signal::Signal;
use serde_json::json;

const TASKS: usize = 50_000;
const KEPT: usize = 1000;
/// Tasks that are open at once.
const AT_ONCE: usize = 256;
/// Sizes are told so often.
const PARTS: usize = 10;

const CREW: &str = "
model: talk
file: talk.script
sequences: 32
---
role: worker
description: D.
model: talk
prompt: W.
limits: {concurrency: 64, queue: 4096}
";

/// Bytes of the database, and of the log beside it.
fn sizes(data: &Path) -> (u64, u64) {
    let size = |name: &str| std::fs::metadata(data.join(name)).map_or(0, |file| file.len());
    (size("journal.sqlite"), size("journal.sqlite-wal"))
}

/// Hands tasks in, one after the other, and follows each to its end.
async fn client(daemon: Arc<Daemon>, left: Arc<AtomicUsize>) {
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let task = daemon.submit(ask("What is to be done?").of_role("worker")).await.unwrap();
        daemon.try_watch(&task.id, 0).await.unwrap().end().await.text();
    }
}

#[tokio::main]
async fn main() {
    let script = json!({"replies": [{"say": "So be it."}]});
    let settings = format!("grace: 60s\nretention: {{tasks: {KEPT}}}\n");
    let daemon = daemon().with_yaml(CREW).with_settings(&settings).in_rehearsal(&script).start().await;
    let (daemon, left) = (Arc::new(daemon), Arc::new(AtomicUsize::new(0)));
    let dir = daemon.dir().join("data");
    let mut told = Vec::new();
    for part in 1..=PARTS {
        let began = Instant::now();
        left.store(TASKS / PARTS, Ordering::Relaxed);
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE {
            clients.spawn(client(daemon.clone(), left.clone()));
        }
        clients.join_all().await;
        let (database, log) = sizes(&dir);
        let rate = (TASKS / PARTS) as f64 / began.elapsed().as_secs_f64();
        println!(
            "{:6} tasks {:8} kB and a log of {:6} kB, {rate:6.0} tasks/s",
            part * TASKS / PARTS,
            database >> 10,
            log >> 10
        );
        told.push(database);
    }
    let Some(mut daemon) = Arc::into_inner(daemon) else { panic!("all clients have ended") };
    daemon.signal(Signal::SIGTERM);
    daemon.exit().await;
    let (first, last) = (told[1], told[PARTS - 1]);
    println!(
        "from {} kB to {} kB in {} tasks; {} kB after the end",
        first >> 10,
        last >> 10,
        TASKS * 8 / PARTS,
        sizes(&dir).0 >> 10
    );
    assert!(last < first + first / 4, "the journal grows");
}

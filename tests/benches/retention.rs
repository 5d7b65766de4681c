//! `cargo xtask bench`: 50,000 short tasks through the real daemon on a scripted engine, of which the journal keeps 1,000.
//! Prints its size over time, which must be flat.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use artel_tests::{Daemon, daemon, task_request};
use nix::sys::signal::Signal;
use serde_json::json;

const TOTAL_TASKS: usize = 50_000;
const KEPT_TASKS: usize = 1000;
/// As many clients, each with one task at a time.
const MAX_CONCURRENT_TASKS: usize = 256;
/// The sizes are printed after each part.
const TOTAL_PARTS: usize = 10;

const CATALOG: &str = "
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

/// Submits tasks one after the other and follows each to its end.
async fn client(daemon: Arc<Daemon>, remaining: Arc<AtomicUsize>) {
    while remaining.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).is_ok() {
        let task = daemon.submit(task_request("What is to be done?").with_role("worker")).await.unwrap();
        daemon.try_watch(&task.id, 0).await.unwrap().end().await.text();
    }
}

#[tokio::main]
async fn main() {
    let script = json!({"replies": [{"say": "So be it."}]});
    let settings = format!("grace: 60s\nretention: {{tasks: {KEPT_TASKS}}}\n");
    let daemon = daemon().with_yaml(CATALOG).with_settings(&settings).with_failpoints(&script).start().await;
    let (daemon, remaining) = (Arc::new(daemon), Arc::new(AtomicUsize::new(0)));
    let dir = daemon.dir().join("data");
    let mut database_sizes = Vec::new();
    for part in 1..=TOTAL_PARTS {
        let start = Instant::now();
        remaining.store(TOTAL_TASKS / TOTAL_PARTS, Ordering::Relaxed);
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..MAX_CONCURRENT_TASKS {
            clients.spawn(client(daemon.clone(), remaining.clone()));
        }
        clients.join_all().await;
        let (database, log) = sizes(&dir);
        let rate = (TOTAL_TASKS / TOTAL_PARTS) as f64 / start.elapsed().as_secs_f64();
        println!(
            "{:6} tasks {:8} kB and a log of {:6} kB, {rate:6.0} tasks/s",
            part * TOTAL_TASKS / TOTAL_PARTS,
            database >> 10,
            log >> 10
        );
        database_sizes.push(database);
    }
    let Some(mut daemon) = Arc::into_inner(daemon) else { panic!("all clients have ended") };
    daemon.signal(Signal::SIGTERM);
    daemon.wait().await;
    let (first, last) = (database_sizes[1], database_sizes[TOTAL_PARTS - 1]);
    println!(
        "from {} kB to {} kB in {} tasks; {} kB after the end",
        first >> 10,
        last >> 10,
        TOTAL_TASKS * 8 / TOTAL_PARTS,
        sizes(&dir).0 >> 10
    );
    assert!(last < first + first / 4, "the journal grows");
}

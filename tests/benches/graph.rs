//! `cargo xtask bench`: 5,000 tasks of a graph of four nodes on a scripted engine, through the real daemon; every step is on
//! disk before anybody hears of it. In turn with the same graph in LangGraph and its SQLite checkpointer, if
//! `ARTEL_TEST_LANGGRAPH` names a Python that has `langgraph` and `langgraph-checkpoint-sqlite`.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use artel_tests::{Daemon, ask, daemon, repository};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const ROUNDS: usize = 3;
const TASKS: usize = 5000;
const STEPS: usize = 4;
/// The peer is slower; a fifth of the tasks tells as much.
const PEER_TASKS: usize = 1000;
/// Tasks that are open at once.
const AT_ONCE: usize = 256;

/// What each node gives, here as there.
const ANSWER: &str = "So be it.";

const CREW: &str = "
model: talk
file: talk.script
sequences: 32
---
# What routers learn when a daemon starts is no part of what is measured.
model: minilm
file: talk.script
use: embedding
---
role: worker
description: D.
model: talk
prompt: W.
limits: {concurrency: 64, queue: 4096}
---
graph: four
description: D.
start: a
result: d
nodes:
  a: {role: worker, next: b}
  b: {role: worker, next: c}
  c: {role: worker, next: d}
  d: {role: worker, next: done}
";

/// What a round measured.
struct Round {
    steps_per_second: f64,
    bytes_per_task: f64,
    resident_kb: f64,
    /// Milliseconds of all cores, for each task; the client's own are not in it where there is one.
    cpu_ms: f64,
}

async fn artel() -> Round {
    let script = json!({"replies": [{"say": ANSWER}]});
    let daemon = Arc::new(daemon().with_yaml(CREW).in_rehearsal(&script).start().await);
    let left = Arc::new(AtomicUsize::new(TASKS));
    let (began, before) = (Instant::now(), cpu(&daemon));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        clients.spawn(client(daemon.clone(), left.clone()));
    }
    clients.join_all().await;
    let steps_per_second = (TASKS * STEPS) as f64 / began.elapsed().as_secs_f64();
    let cpu_ms = (cpu(&daemon) - before).as_secs_f64() * 1000.0 / TASKS as f64;
    let resident_kb = resident(&daemon);
    let Some(mut daemon) = Arc::into_inner(daemon) else { panic!("all clients have ended") };
    daemon.signal(Signal::SIGTERM);
    daemon.exit().await;
    let bytes = std::fs::metadata(daemon.dir().join("data/journal.sqlite")).unwrap().len();
    Round { steps_per_second, bytes_per_task: bytes as f64 / TASKS as f64, resident_kb, cpu_ms }
}

/// Hands tasks in, one after the other, and follows each to its end.
async fn client(daemon: Arc<Daemon>, left: Arc<AtomicUsize>) {
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let task = daemon.submit(ask("What is to be done?").of_graph("four")).await.unwrap();
        let mut run = daemon.try_watch(&task.id, 0).await.unwrap();
        assert_eq!(run.end().await.text(), ANSWER);
    }
}

/// What the daemon has used of all cores.
fn cpu(daemon: &Daemon) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.id())).unwrap();
    // The name, in brackets, may hold anything; fields 14 and 15 of all are hundredths of seconds.
    let after = stat.rsplit_once(") ").unwrap().1;
    let ticks: u64 = after.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// The most memory that the daemon had.
fn resident(daemon: &Daemon) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn langgraph(python: &str) -> Round {
    let dir = tempfile::tempdir().unwrap();
    let script = repository().join("tests/scripts/langgraph_bench.py");
    let output = Command::new(python)
        .arg(script)
        .args([&PEER_TASKS.to_string(), ANSWER])
        .arg(dir.path().join("langgraph.sqlite"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |key: &str| said[key].as_f64().unwrap();
    Round {
        steps_per_second: number("steps_per_second"),
        bytes_per_task: number("bytes_per_task"),
        resident_kb: number("resident_kb"),
        cpu_ms: number("cpu_ms"),
    }
}

fn tell(who: &str, round: &Round) {
    let Round { steps_per_second, bytes_per_task, resident_kb, cpu_ms } = round;
    let tasks = steps_per_second / STEPS as f64;
    print!("{who:<10} {tasks:7.0} tasks/s {steps_per_second:8.0} steps/s {bytes_per_task:7.0} bytes/task ");
    println!("{resident_kb:8.0} kB {cpu_ms:7.2} ms of CPU/task");
}

fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() {
    let python = std::env::var("ARTEL_TEST_LANGGRAPH").ok();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(artel().await);
        tell("artel", &ours[ours.len() - 1]);
        if let Some(python) = &python {
            theirs.push(langgraph(python));
            tell("langgraph", &theirs[theirs.len() - 1]);
        }
    }
    let Some(_) = python else { return println!("ARTEL_TEST_LANGGRAPH is not set: nobody to compare with") };
    let ratio = |of: fn(&Round) -> f64| median(&ours, of) / median(&theirs, of);
    println!(
        "medians: {:.1} times the steps per second, {:.2} of the bytes per task",
        ratio(|round| round.steps_per_second),
        ratio(|round| round.bytes_per_task)
    );
}

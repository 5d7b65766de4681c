//! `cargo xtask bench`: 5,000 tasks of a graph of four nodes on a scripted engine, through the real daemon; every step is
//! on disk before a client receives it. In turn with the same graph in LangGraph and its SQLite checkpointer, if
//! `ARTEL_TEST_LANGGRAPH` names a Python that has `langgraph` and `langgraph-checkpoint-sqlite`.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use artel_tests::{Daemon, daemon, repository, task_request};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const ROUNDS: usize = 3;
const TOTAL_TASKS: usize = 5000;
const TASK_STEPS: usize = 4;
/// LangGraph is slower; a fifth of the tasks gives as good a mean.
const PEER_TASKS: usize = 1000;
/// As many clients, each with one task at a time.
const MAX_CONCURRENT_TASKS: usize = 256;

/// The output of each node, in both programs.
const ANSWER: &str = "So be it.";

const CATALOG: &str = "
model: talk
file: talk.script
sequences: 32
---
# The warm-up of routers at the start of the daemon is not measured.
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

/// The figures of a round.
struct RoundMetrics {
    steps_per_second: f64,
    bytes_per_task: f64,
    resident_kb: f64,
    /// CPU milliseconds of all cores for each task, without those of the client if there is one.
    cpu_ms: f64,
}

async fn artel() -> RoundMetrics {
    let script = json!({"replies": [{"say": ANSWER}]});
    let daemon = Arc::new(daemon().with_yaml(CATALOG).with_failpoints(&script).start().await);
    let remaining = Arc::new(AtomicUsize::new(TOTAL_TASKS));
    let (start, cpu_before) = (Instant::now(), cpu_time(&daemon));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..MAX_CONCURRENT_TASKS {
        clients.spawn(client(daemon.clone(), remaining.clone()));
    }
    clients.join_all().await;
    let steps_per_second = (TOTAL_TASKS * TASK_STEPS) as f64 / start.elapsed().as_secs_f64();
    let cpu_ms = (cpu_time(&daemon) - cpu_before).as_secs_f64() * 1000.0 / TOTAL_TASKS as f64;
    let resident_kb = peak_resident_kb(&daemon);
    let Some(mut daemon) = Arc::into_inner(daemon) else { panic!("all clients have ended") };
    daemon.signal(Signal::SIGTERM);
    daemon.wait().await;
    let bytes = std::fs::metadata(daemon.dir().join("data/journal.sqlite")).unwrap().len();
    RoundMetrics { steps_per_second, bytes_per_task: bytes as f64 / TOTAL_TASKS as f64, resident_kb, cpu_ms }
}

/// Submits tasks one after the other and follows each to its end.
async fn client(daemon: Arc<Daemon>, remaining: Arc<AtomicUsize>) {
    while remaining.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).is_ok() {
        let task = daemon.submit(task_request("What is to be done?").with_graph("four")).await.unwrap();
        let mut run = daemon.try_watch(&task.id, 0).await.unwrap();
        assert_eq!(run.end().await.text(), ANSWER);
    }
}

/// CPU time of the daemon on all cores.
fn cpu_time(daemon: &Daemon) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.process_id())).unwrap();
    // The name, in parentheses, may hold any character. Fields 14 and 15 are CPU time in hundredths of a second.
    let fields = stat.rsplit_once(") ").unwrap().1;
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// The peak resident memory of the daemon in kB.
fn peak_resident_kb(daemon: &Daemon) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.process_id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn langgraph(python: &str) -> RoundMetrics {
    let dir = tempfile::tempdir().unwrap();
    let script = repository().join("tests/scripts/langgraph_bench.py");
    let output = Command::new(python)
        .arg(script)
        .args([&PEER_TASKS.to_string(), ANSWER])
        .arg(dir.path().join("langgraph.sqlite"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |key: &str| report[key].as_f64().unwrap();
    RoundMetrics {
        steps_per_second: number("steps_per_second"),
        bytes_per_task: number("bytes_per_task"),
        resident_kb: number("resident_kb"),
        cpu_ms: number("cpu_ms"),
    }
}

fn print_round(program: &str, round: &RoundMetrics) {
    let RoundMetrics { steps_per_second, bytes_per_task, resident_kb, cpu_ms } = round;
    let tasks = steps_per_second / TASK_STEPS as f64;
    print!("{program:<10} {tasks:7.0} tasks/s {steps_per_second:8.0} steps/s {bytes_per_task:7.0} bytes/task ");
    println!("{resident_kb:8.0} kB {cpu_ms:7.2} ms of CPU/task");
}

fn median(rounds: &[RoundMetrics], metric: impl Fn(&RoundMetrics) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(metric).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() {
    let python = std::env::var("ARTEL_TEST_LANGGRAPH").ok();
    let (mut artel_rounds, mut langgraph_rounds) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        artel_rounds.push(artel().await);
        print_round("artel", &artel_rounds[artel_rounds.len() - 1]);
        if let Some(python) = &python {
            langgraph_rounds.push(langgraph(python));
            print_round("langgraph", &langgraph_rounds[langgraph_rounds.len() - 1]);
        }
    }
    let Some(_) = python else { return println!("ARTEL_TEST_LANGGRAPH is not set: no comparison") };
    let ratio = |metric: fn(&RoundMetrics) -> f64| median(&artel_rounds, metric) / median(&langgraph_rounds, metric);
    println!(
        "medians: {:.1} times the steps per second, {:.2} of the bytes per task",
        ratio(|round| round.steps_per_second),
        ratio(|round| round.bytes_per_task)
    );
}

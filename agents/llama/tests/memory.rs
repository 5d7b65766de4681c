//! Memory after thousands of sequences is what it was after the first hundreds. A test of its own, since the others of a binary
//! would share its process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use artel_engine::{Chunk, Priority, Error, EngineHandle, Message, ContextOverflow, Request, SamplingParams, ChatRole};
use artel_llama::{Cache, Llama, Options};
use serde_json::json;

const SEQUENCES: u32 = 2000;
const AT_ONCE: u32 = 8;
/// Before the first measure: every buffer has been used, and every thread has started.
const WARM: u32 = 200;

fn models() -> PathBuf {
    let given = std::env::var_os("ARTEL_TEST_MODELS").map(PathBuf::from);
    let dir = given.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/artel/models"));
    assert!(dir.is_dir(), "{} is missing: run `cargo xtask setup`", dir.display());
    dir
}

async fn small() -> EngineHandle {
    let options = Options {
        path: models().join("SmolLM2-135M-Instruct.Q4_1.gguf"),
        sha256: None,
        context: Some(128),
        sequences: AT_ONCE,
        threads: 2,
        devices: Some(vec!["CPU".to_owned()]),
        split: artel_llama::Split::None,
        shares: Vec::new(),
        embedding: false,
        template: None,
        cache: Cache::default(),
    };
    let load = || Llama::load(options).map_err(|e| e.to_string());
    // What is kept of prompts grows up to its budget by intention.
    let engine = artel_engine::Options { prefix_cache_bytes: 0, ..artel_engine::Options::default() };
    EngineHandle::spawn("memory", engine, load).await.unwrap()
}

/// Hardly different questions, so that most tokens are found in a slot, and short answers, so that the test is short; some
/// answers have a schema.
fn request(number: u32, tokens: u32) -> Request {
    let message = |speaker, text: &str| Message { role: speaker, text: text.to_owned() };
    let schema = number.is_multiple_of(20).then(|| Arc::new(json!({"enum": ["a", "b"]})));
    Request {
        flow: Arc::from(if number.is_multiple_of(2) { "even" } else { "odd" }),
        priority: Priority::Interactive,
        remaining_steps: 0,
        messages: vec![
            message(ChatRole::System, "S"),
            message(ChatRole::User, if number.is_multiple_of(16) { "A" } else { "B" }),
        ],
        adapter: None,
        sampling: SamplingParams { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, repeat_penalty: 1.0, seed: Some(1) },
        max_tokens: tokens,
        stop: Vec::new(),
        schema,
        overflow: ContextOverflow::Reject,
    }
}

/// A number that looks like chance, the same in every run.
fn chance(number: u32) -> u32 {
    number.wrapping_mul(2_654_435_761) >> 16
}

/// Runs the sequences up to this number, some at once. Every fifth is dropped by its reader after a few chunks or none.
async fn run(engine: &EngineHandle, next: &Arc<AtomicU32>, last: u32) {
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (engine, next) = (engine.clone(), next.clone());
        readers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= last {
                    break;
                }
                let (tokens, patience) = match chance(number) % 5 {
                    0 => (4, chance(number + 1) % 3),
                    _ => (1, u32::MAX),
                };
                read(&engine, request(number, tokens), patience).await.unwrap();
            }
        });
    }
    readers.join_all().await;
    next.store(last, Ordering::Relaxed);
}

async fn read(engine: &EngineHandle, request: Request, patience: u32) -> Result<(), Error> {
    let mut stream = engine.generate(request).await?;
    for _ in 0..patience {
        match stream.recv().await.expect("a stream has an end") {
            Chunk::Finished(_) => break,
            Chunk::Failed(error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Kilobytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_sequences_a_fifth_of_them_cancelled_leave_memory_as_it_was() {
    let (engine, next) = (small().await, Arc::new(AtomicU32::new(0)));
    run(&engine, &next, WARM).await;
    let before = resident();
    run(&engine, &next, WARM + SEQUENCES).await;
    let after = resident();
    let stats = engine.stats();
    println!("{before} kB after {WARM} sequences, {after} kB after {SEQUENCES} more; {stats:?}");
    assert!(stats.cancelled > u64::from(SEQUENCES) / 10 && stats.failed == 0, "{stats:?}");
    // The bound of 5 % that was asked for would pass over 5 kB a sequence.
    assert!(after < before + before / 50, "{before} kB grew to {after} kB");
}

//! A process that ends while its engine computes ends with its own status, not with a signal.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use artel_engine::{Chunk, Class, Handle, Message, Overflow, Request, Sampling, Speaker};
use artel_llama::{Cache, Llama, Options, Split};

/// Set in the processes that end in the middle: milliseconds after the first token.
const ENDS_AFTER: &str = "ARTEL_TEST_ENDS_AFTER";
const STATUS: i32 = 7;
const PROCESSES: u64 = 12;

fn models() -> PathBuf {
    let given = std::env::var_os("ARTEL_TEST_MODELS").map(PathBuf::from);
    let dir = given.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/artel/models"));
    assert!(dir.is_dir(), "{} is missing: run `cargo xtask setup`", dir.display());
    dir
}

async fn end_in_the_middle(after: Duration) -> ! {
    let options = Options {
        path: models().join("SmolLM2-135M-Instruct.Q4_1.gguf"),
        sha256: None,
        context: Some(512),
        sequences: 1,
        threads: 2,
        devices: Some(vec!["CPU".to_owned()]),
        split: Split::None,
        shares: Vec::new(),
        embedding: false,
        template: None,
        cache: Cache::default(),
    };
    let load = || Llama::load(options).map_err(|e| e.to_string());
    let engine = Handle::spawn("exit", artel_engine::Options::default(), load).await.unwrap();
    let request = Request {
        flow: "exit".into(),
        class: Class::Interactive,
        left: 0,
        messages: vec![Message { speaker: Speaker::User, text: "Tell me a long story.".to_owned() }],
        adapter: None,
        sampling: Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, repeat_penalty: 1.0, seed: Some(1) },
        max_tokens: 400,
        stop: Vec::new(),
        schema: None,
        overflow: Overflow::Reject,
    };
    let mut stream = engine.generate(request).await.unwrap();
    while !matches!(stream.recv().await, Some(Chunk::Text { .. })) {}
    std::thread::sleep(after);
    std::process::exit(STATUS)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_may_end_while_its_engine_computes() {
    if let Ok(after) = std::env::var(ENDS_AFTER) {
        end_in_the_middle(Duration::from_millis(after.parse().unwrap())).await;
    }
    for after in 0..PROCESSES {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "a_process_may_end_while_its_engine_computes"]).env(ENDS_AFTER, (3 * after).to_string());
        let output = child.output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(STATUS),
            "{:?}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

//! Memory does not grow over thousands of sequences. In a process of its own, because the other tests of this binary would
//! change its memory.

use std::env;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use artel_engine::{
    ChatRole, Chunk, ContextOverflow, EngineHandle, Error, LoadError, Message, Priority, Request, RequestOrigin,
    SamplingParams,
};
use artel_llama::{KvCacheTypes, LlamaBackend, Options};
use serde_json::json;

use crate::demo_models;

const CHAT_MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// Set in the process that measures its own memory.
const CHILD_VARIABLE: &str = "ARTEL_TEST_MEMORY_LEAK";
const SEQUENCES: u32 = 2000;
const MAX_CONCURRENT_SEQUENCES: u32 = 8;
/// Sequences before the first measurement, after which every buffer has been used and every thread has started.
const WARMUP_SEQUENCES: u32 = 200;

async fn small() -> EngineHandle {
    let options = Options {
        path: demo_models::path(CHAT_MODEL),
        dequantized: None,
        sha256: None,
        context: Some(128),
        sequences: MAX_CONCURRENT_SEQUENCES,
        threads: 2,
        devices: Some(vec!["CPU".to_owned()]),
        split_mode: artel_model::SplitMode::None,
        tensor_split: Vec::new(),
        gpu_layers: None,
        cpu_expert_layers: 0,
        purpose: artel_model::ModelPurpose::Chat,
        template: None,
        template_kwargs: serde_json::Map::new(),
        kv_cache: KvCacheTypes::default(),
    };
    let load = || LlamaBackend::load(options).map_err(LoadError::from);
    // The prefix cache grows up to its budget by design.
    let engine = artel_engine::Options { prefix_cache_bytes: 0, ..artel_engine::Options::default() };
    EngineHandle::spawn("memory", engine, load).await.unwrap()
}

/// Almost identical questions, so that most tokens are found in a slot, and short answers, so that the test is short; some
/// answers have a schema.
fn request(number: u32, tokens: u32) -> Request {
    let message = |role, text: &str| Message::new(role, text);
    let schema = number.is_multiple_of(20).then(|| Arc::new(json!({"enum": ["a", "b"]})));
    Request {
        flow: Arc::from(if number.is_multiple_of(2) { "even" } else { "odd" }),
        priority: Priority::Interactive,
        remaining_steps: 0,
        messages: vec![
            message(ChatRole::System, "S"),
            message(ChatRole::User, if number.is_multiple_of(16) { "A" } else { "B" }),
        ],
        adapters: Vec::new(),
        sampling: SamplingParams { seed: Some(1), ..SamplingParams::GREEDY },
        logprobs: None,
        shares_prompt: false,
        max_tokens: tokens,
        stop: Vec::new(),
        schema,
        tools: None,
        overflow: ContextOverflow::Reject,
        has_fixed_prefix: true,
        template_kwargs: Arc::default(),
        reasoning: artel_engine::ReasoningParams::default(),
        origin: RequestOrigin::default(),
    }
}

/// A pseudorandom number, the same in every run.
fn pseudorandom(number: u32) -> u32 {
    number.wrapping_mul(2_654_435_761) >> 16
}

/// Runs the sequences up to this number, some concurrently. About a fifth is dropped by its reader after at most two chunks.
async fn run(engine: &EngineHandle, next: &Arc<AtomicU32>, last: u32) {
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..MAX_CONCURRENT_SEQUENCES {
        let (engine, next) = (engine.clone(), next.clone());
        readers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= last {
                    break;
                }
                let (tokens, max_chunks) = match pseudorandom(number) % 5 {
                    0 => (4, pseudorandom(number + 1) % 3),
                    _ => (1, u32::MAX),
                };
                read(&engine, request(number, tokens), max_chunks).await.unwrap();
            }
        });
    }
    readers.join_all().await;
    next.store(last, Ordering::Relaxed);
}

async fn read(engine: &EngineHandle, request: Request, max_chunks: u32) -> Result<(), Error> {
    let mut stream = engine.generate(request).await?;
    for _ in 0..max_chunks {
        match stream.recv().await.expect("a stream ends with `Finished` or `Failed`") {
            Chunk::Finished(_) => break,
            Chunk::Failed(error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Resident memory of this process in kilobytes.
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn two_thousand_sequences_a_fifth_of_them_cancelled_do_not_leak_memory() {
    if env::var_os(CHILD_VARIABLE).is_some() {
        return measure();
    }
    // Without the model this process ends with the message, not the child.
    demo_models::path(CHAT_MODEL);
    let name = "memory_leak::two_thousand_sequences_a_fifth_of_them_cancelled_do_not_leak_memory";
    let mut child = Command::new(env::current_exe().unwrap());
    let output = child.args(["--exact", name, "--nocapture"]).env(CHILD_VARIABLE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    assert!(output.status.success() && text.contains("1 passed"), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn measure() {
    let (engine, next) = (small().await, Arc::new(AtomicU32::new(0)));
    run(&engine, &next, WARMUP_SEQUENCES).await;
    let before = resident_kb();
    run(&engine, &next, WARMUP_SEQUENCES + SEQUENCES).await;
    let after = resident_kb();
    let stats = engine.stats();
    println!("{before} kB after {WARMUP_SEQUENCES} sequences, {after} kB after {SEQUENCES} more; {stats:?}");
    assert!(stats.cancelled > u64::from(SEQUENCES) / 10 && stats.failed == 0, "{stats:?}");
    // A bound of 5 % would not detect a leak of 5 kB per sequence.
    assert!(after < before + before / 50, "{before} kB grew to {after} kB");
}

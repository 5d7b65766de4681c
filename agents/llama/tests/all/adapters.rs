//! Sequences with different adapters in the slots of one cache, on the real demo model.

use std::path::Path;

use artel_engine::{EngineHandle, LoadError, Request};
use artel_llama::{LlamaBackend, Options};

use crate::model::{answer, ask, options};

const ADAPTERS: [&str; 4] = ["zork", "quux", "mirk", "velo"];
const STREAMS: usize = 8;

fn with(adapter: &str, question: &str, max_tokens: u32) -> Request {
    let adapters = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/adapters");
    let adapters = vec![(adapters.join(format!("{adapter}.gguf")), 1.0)];
    Request { adapters, max_tokens, ..ask("You are a geography expert.", question) }
}

#[tokio::test]
async fn answers_stay_the_same_while_sequences_change_places() {
    let load = || {
        let options = Options { sequences: 8, ..options("SmolLM2-135M-Instruct.Q4_1.gguf") };
        LlamaBackend::load(options).map_err(LoadError::from)
    };
    let engine_options =
        artel_engine::Options { draft_mode: artel_engine::DraftMode::Never, ..artel_engine::Options::default() };
    let engine = EngineHandle::spawn("test", engine_options, load).await.unwrap();
    let questions = ["What is the capital of France?", "Tell me about the capital of France and its river."];
    let request = |at: usize, tokens| with(ADAPTERS[at % 4], questions[at / 4], tokens);
    let mut alone = Vec::new();
    for at in 0..STREAMS {
        alone.push(answer(&engine, request(at, 120)).await.unwrap().0);
    }
    for round in 0..3 {
        let before = engine.stats();
        let together = futures::future::join_all((0..STREAMS).map(|at| answer(&engine, request(at, 120)))).await;
        let after = engine.stats();
        let (ns, batches) = (after.batch_ns - before.batch_ns, after.batches - before.batches);
        let tokens = after.output_tokens - before.output_tokens;
        println!(
            "round {round}: {batches} batches, {tokens} tokens, {:.2} ms a batch, {:.1} tokens/s",
            ns as f64 / batches as f64 / 1e6,
            tokens as f64 / ns as f64 * 1e9
        );
        for (at, text) in together.into_iter().enumerate() {
            assert_eq!(text.unwrap().0, alone[at], "{at}");
        }
    }
}

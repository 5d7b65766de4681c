//! Sequences with different adapters in the slots of one cache: which of them share passes over the weights.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use artel_engine::backend::{BatchToken, EngineLimits, Slot};
use artel_engine::scripted::{BatchGate, CacheProbe, ScriptedBackend};
use artel_engine::{DraftMode, EngineHandle, Options, OutputStream, Request};

use crate::requests::{answer, ask, read};

const LIMITS: EngineLimits = EngineLimits {
    context_tokens: 512,
    sequences: 8,
    batch_tokens: 64,
    prefill_multiple: 1,
    can_truncate_kv: true,
    can_shift: true,
};
/// Batches in which sequences change places: each takes four of its set before it moves.
const MAX_EXCHANGE_BATCHES: usize = 400;
const REPLY_TOKENS: u32 = 400;

/// The passes over the weights that llama.cpp makes for a batch: each takes sequences whose slots follow one another in the batch,
/// and as many tokens of each. Source: `llama_batch_allocr::split_equal`.
fn passes_of(batch: &[BatchToken]) -> u64 {
    let mut remaining: Vec<(Slot, usize)> = Vec::new();
    for token in batch {
        match remaining.iter_mut().find(|(slot, _)| *slot == token.slot) {
            Some((_, tokens)) => *tokens += 1,
            None => remaining.push((token.slot, 1)),
        }
    }
    let mut passes = 0;
    while let Some((mut last, _)) = remaining.first().copied() {
        let mut joined = vec![0];
        for (at, (slot, _)) in remaining.iter().enumerate().skip(1) {
            if slot.0 == last.0 + 1 {
                joined.push(at);
                last = *slot;
            }
        }
        let tokens = joined.iter().map(|at| remaining[*at].1).min().unwrap();
        joined.iter().for_each(|at| remaining[*at].1 -= tokens);
        remaining.retain(|(_, tokens)| *tokens > 0);
        passes += 1;
    }
    passes
}

/// A model that answers with the last letter of its prompt, and counts passes.
fn model(gate: &BatchGate) -> (ScriptedBackend, Arc<AtomicU64>) {
    let passes = Arc::new(AtomicU64::new(0));
    let counted = passes.clone();
    let reply = |prompt: &str| prompt.trim().chars().last().unwrap().to_string().repeat(REPLY_TOKENS as usize);
    let count = move |_, batch: &[BatchToken]| {
        counted.fetch_add(passes_of(batch), Relaxed);
        None
    };
    (ScriptedBackend::new(LIMITS, reply).with_faults(count).with_gate(gate), passes)
}

async fn engine(model: ScriptedBackend) -> EngineHandle {
    let options = Options { draft_mode: DraftMode::Never, ..Options::default() };
    EngineHandle::spawn("test", options, || Ok(model)).await.unwrap()
}

fn with(adapter: &str, text: &str, max_tokens: u32) -> Request {
    let adapters = vec![(format!("{adapter}.gguf").into(), 1.0)];
    Request { adapters, max_tokens, ..ask(text) }
}

fn step(gate: &BatchGate) {
    gate.pass(1);
    gate.wait_until_held();
}

/// The adapters of each slot, in order.
fn layout(probe: &CacheProbe) -> Vec<u32> {
    let cells: BTreeMap<u32, u32> = probe.cells().iter().map(|(slot, cells)| (slot.0, cells.adapters.0)).collect();
    cells.into_values().collect()
}

fn groups(layout: &[u32]) -> usize {
    layout.chunk_by(|a, b| a == b).count()
}

/// Two streams for each of four adapters, of which each is admitted before the next comes.
async fn streams(engine: &EngineHandle, gate: &BatchGate, probe: &CacheProbe) -> Vec<OutputStream> {
    let mut streams = Vec::new();
    for text in ["one p", "two q"] {
        for adapter in ["a", "b", "c", "d"] {
            streams.push(engine.generate(with(adapter, text, REPLY_TOKENS)).await.unwrap());
            step(gate);
        }
    }
    while layout(probe).len() < LIMITS.sequences as usize {
        step(gate);
    }
    streams
}

async fn assert_answers(streams: Vec<OutputStream>) {
    for (at, stream) in streams.into_iter().enumerate() {
        let letter = if at < 4 { "p" } else { "q" };
        assert_eq!(read(stream).await.unwrap().0, letter.repeat(REPLY_TOKENS as usize));
    }
}

#[tokio::test]
async fn sequences_of_each_set_begin_beside_one_another() {
    let gate = BatchGate::default();
    let (model, passes) = model(&gate);
    let probe = model.probe();
    let engine = engine(model).await;
    let streams = streams(&engine, &gate, &probe).await;
    assert_eq!(groups(&layout(&probe)), 4, "{:?}", layout(&probe));
    let (passes_before, batches) = (passes.load(Relaxed), engine.stats().batches);
    (0..40).for_each(|_| step(&gate));
    assert_eq!(passes.load(Relaxed) - passes_before, engine.stats().batches - batches, "one pass a batch");
    gate.open();
    assert_answers(streams).await;
}

#[tokio::test]
async fn sequences_of_each_set_gather_where_no_slot_is_free() {
    let gate = BatchGate::default();
    let (model, passes) = model(&gate);
    let probe = model.probe();
    let engine = engine(model).await;
    // All slots have tokens of others, released in their order, so that the sequences with adapters lie scattered.
    for at in 0..LIMITS.sequences {
        gate.pass(1);
        answer(&engine, Request { max_tokens: 1, ..ask(&format!("{at} x")) }).await.unwrap();
    }
    let streams = streams(&engine, &gate, &probe).await;
    let mut batches = 0;
    while groups(&layout(&probe)) > 4 {
        step(&gate);
        batches += 1;
        assert!(batches < MAX_EXCHANGE_BATCHES, "{:?}", layout(&probe));
    }
    let (passes_before, batches) = (passes.load(Relaxed), engine.stats().batches);
    (0..40).for_each(|_| step(&gate));
    assert_eq!(passes.load(Relaxed) - passes_before, engine.stats().batches - batches, "one pass a batch");
    gate.open();
    assert_answers(streams).await;
    assert_eq!(engine.stats().failed, 0);
}

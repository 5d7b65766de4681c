//! Texts that are computed as a whole, over a scripted model.

use artel_engine::scripted::{BatchGate, ScriptedBackend};
use artel_engine::{EngineHandle, Error, Options, PooledInput, PooledTexts, PoolingRequest, Priority};

use crate::engine::LIMITS;

fn texts(texts: &[&str]) -> PoolingRequest {
    let input = PooledInput::Texts(texts.iter().map(|text| (*text).to_owned()).collect());
    PoolingRequest { input, priority: Priority::Interactive, truncates: false }
}

async fn engine(gate: &BatchGate, options: Options) -> EngineHandle {
    let model = ScriptedBackend::new(LIMITS, |_| String::new()).with_pooling_gate(gate);
    EngineHandle::spawn("test", options, || Ok(model)).await.unwrap()
}

fn open_gate() -> BatchGate {
    let gate = BatchGate::default();
    gate.open();
    gate
}

#[tokio::test]
async fn each_text_has_its_vector_and_its_tokens_and_texts_share_batches() {
    let engine = engine(&open_gate(), Options::default()).await;
    let PooledTexts { vectors, tokens } = engine.pool(texts(&["a cat", "a dog", "cat a"])).await.unwrap();
    assert_eq!(tokens, [5, 5, 5]);
    let dot = |a: usize, b: usize| vectors[a].iter().zip(&vectors[b]).map(|(x, y)| x * y).sum::<f32>();
    assert!((dot(0, 2) - 1.0).abs() < 1e-6 && dot(0, 1) < 0.6, "{} {}", dot(0, 2), dot(0, 1));
    let stats = engine.stats();
    assert_eq!((stats.batches, stats.batch_tokens, stats.finished, stats.waiting), (1, 15, 3, 0));
    assert_eq!(engine.pool(texts(&[])).await, Ok(PooledTexts::default()));
}

#[tokio::test]
async fn a_document_is_scored_together_with_the_query() {
    let engine = engine(&open_gate(), Options::default()).await;
    let documents = ["a dog", "the cat sleeps"].map(str::to_owned).to_vec();
    let input = PooledInput::Documents { query: "cat".to_owned(), documents };
    let request = PoolingRequest { input, priority: Priority::Interactive, truncates: false };
    let scored = engine.pool(request).await.unwrap();
    assert_eq!((scored.vectors[0][0], scored.tokens), (0.0, vec![9, 18]));
    assert!(scored.vectors[1][0] > 0.5, "{:?}", scored.vectors);
}

#[tokio::test]
async fn a_request_whose_caller_is_gone_frees_the_engine_between_two_batches() {
    let gate = BatchGate::default();
    let engine = engine(&gate, Options::default()).await;
    let many = vec!["many"; LIMITS.sequences as usize * 50];
    let pooling = tokio::spawn({
        let engine = engine.clone();
        async move { engine.pool(texts(&many)).await }
    });
    let held = gate.clone();
    tokio::task::spawn_blocking(move || held.wait_until_held()).await.unwrap();
    pooling.abort();
    assert!(pooling.await.unwrap_err().is_cancelled());
    gate.open();
    engine.pool(texts(&["another"])).await.unwrap();
    let stats = engine.stats();
    assert_eq!((stats.batches, stats.finished), (2, 1), "the batch in progress and the other text: {stats:?}");
    assert_eq!((stats.cancelled, stats.waiting), (u64::from(LIMITS.sequences) * 49, 0));
}

#[tokio::test]
async fn a_text_that_is_too_long_is_named_and_a_full_queue_refuses() {
    let gate = open_gate();
    let engine = engine(&gate, Options { max_waiting: 0, ..Options::default() }).await;
    assert_eq!(engine.pool(texts(&["a"])).await, Err(Error::QueueFull(0)));
    let engine = self::engine(&gate, Options::default()).await;
    let limit = LIMITS.context_tokens.min(LIMITS.batch_tokens);
    let long = "x".repeat(limit as usize + 3);
    let refused = engine.pool(texts(&["a", &long])).await.unwrap_err();
    assert_eq!(refused, Error::TextTooLong { index: Some(1), tokens: limit + 3, limit });
    assert!(refused.to_string().contains(&format!("text 1 has {} tokens", limit + 3)), "{refused}");
    let cut = engine.pool(PoolingRequest { truncates: true, ..texts(&["a", &long]) }).await.unwrap();
    assert_eq!(cut.tokens, [1, limit]);
}

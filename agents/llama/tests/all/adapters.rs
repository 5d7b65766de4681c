//! Sequences that change places in the slots of one cache, on the real demo model.

use artel_engine::{DraftMode, EngineHandle, LoadError, Request};
use artel_llama::{LlamaBackend, Options};

use crate::model::{answer, ask, options};

#[tokio::test]
async fn answers_are_the_same_where_sequences_change_places() {
    let load = || {
        let options = Options { sequences: 3, ..options("SmolLM2-135M-Instruct.Q4_1.gguf") };
        LlamaBackend::load(options).map_err(LoadError::from)
    };
    // The prefix cache would hide what is lost in the slots.
    let options = artel_engine::Options {
        draft_mode: DraftMode::Never,
        prefix_cache_bytes: 0,
        ..artel_engine::Options::default()
    };
    let engine = EngineHandle::spawn("test", options, load).await.unwrap();
    let of = |question: &str, max_tokens| Request { max_tokens, ..ask("You are a geography expert.", question) };
    // The second one ends early, in the slot between those of the others.
    let requests = || {
        // A busy machine computes prompts in other batches, whose rounding decides between words that are nearly as likely: few are
        // written.
        [("What is the capital of France?", 6), ("Name a sea.", 2), ("What is the capital of Italy?", 6)]
            .map(|(question, tokens)| of(question, tokens))
    };
    let mut alone = Vec::new();
    for request in requests() {
        alone.push(answer(&engine, request).await.unwrap().0);
    }
    let together = futures::future::join_all(requests().map(|request| answer(&engine, request))).await;
    let together: Vec<String> = together.into_iter().map(|answer| answer.unwrap().0).collect();
    assert_eq!(together, alone);
    for (request, alone) in requests().into_iter().zip(&alone) {
        let (text, finish) = answer(&engine, request).await.unwrap();
        assert_eq!((&text, finish.usage.computed), (alone, 1), "all but the last token of its prompt stayed resident");
    }
}

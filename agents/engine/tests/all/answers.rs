//! Several answers to one prompt, and how likely the tokens of an answer were.

use std::sync::Arc;

use artel_engine::backend::EngineLimits;
use artel_engine::scripted::ScriptedBackend;
use artel_engine::{
    Chunk, DraftMode, EngineHandle, FinishReason, FinishSummary, Options, Request, TokenLogprob, TopLogprob,
};

use crate::requests::{answer, ask};

const LIMITS: EngineLimits = EngineLimits {
    context_tokens: 256,
    sequences: 4,
    batch_tokens: 32,
    prefill_multiple: 1,
    can_truncate_kv: true,
    can_shift: true,
};

/// An engine whose prefix cache keeps nothing.
async fn engine(limits: EngineLimits, reply: fn(&str) -> String) -> EngineHandle {
    let model = ScriptedBackend::new(limits, reply);
    let options = Options { prefix_cache_bytes: 0, draft_mode: DraftMode::Never, ..Options::default() };
    EngineHandle::spawn("test", options, || Ok(model)).await.unwrap()
}

/// The prompt and the computed tokens of so many answers to one prompt.
async fn tokens_of_answers(engine: &EngineHandle, count: usize) -> (u32, u32) {
    let request = Request { shares_prompt: true, ..ask(&"what ".repeat(20)) };
    let answers = (0..count).map(|_| answer(engine, request.clone()));
    let answers = futures::future::try_join_all(answers).await.unwrap();
    assert!(answers.iter().all(|(text, _)| text == "an answer"), "{answers:?}");
    (answers[0].1.usage.prompt, answers.iter().map(|(_, finish)| finish.usage.computed).sum())
}

#[tokio::test]
async fn several_answers_to_one_prompt_compute_it_once() {
    let engine = engine(LIMITS, |_| "an answer".to_owned()).await;
    let (prompt, computed) = tokens_of_answers(&engine, 4).await;
    assert_eq!((prompt, computed), (101, 101 + 3), "the last token is computed for each answer");
    assert_eq!(engine.stats().prefill_tokens, u64::from(computed));
}

#[tokio::test]
async fn answers_that_wait_for_a_slot_compute_the_prompt_no_more_than_others() {
    let engine = engine(EngineLimits { sequences: 2, ..LIMITS }, |_| "an answer".to_owned()).await;
    assert_eq!(tokens_of_answers(&engine, 7).await, (101, 101 + 6));
}

#[tokio::test]
async fn a_model_whose_cells_cannot_be_freed_alone_computes_the_prompt_for_each_answer() {
    let engine = engine(EngineLimits { can_truncate_kv: false, ..LIMITS }, |_| "an answer".to_owned()).await;
    assert_eq!(tokens_of_answers(&engine, 3).await, (101, 3 * 101));
}

#[tokio::test]
async fn requests_that_share_nothing_are_not_held_back_by_each_other() {
    let engine = engine(LIMITS, |_| "an answer".to_owned()).await;
    let one = Request { shares_prompt: true, ..ask(&"what ".repeat(20)) };
    let other = Request { shares_prompt: true, ..ask(&"other ".repeat(20)) };
    let (one, other) = tokio::join!(answer(&engine, one), answer(&engine, other));
    assert_eq!((one.unwrap().1.usage.computed, other.unwrap().1.usage.computed), (101, 121));
}

#[tokio::test]
async fn answers_with_a_schema_share_a_prompt_behind_which_something_is_forced() {
    let engine = engine(LIMITS, |_| r#"|{"verdict":"|ship|"}|"#.to_owned()).await;
    let schema = Some(Arc::new(serde_json::json!({})));
    let request = Request { shares_prompt: true, schema, ..ask(&"what ".repeat(20)) };
    let answers = (0..3).map(|_| answer(&engine, request.clone()));
    for (text, finish) in futures::future::try_join_all(answers).await.unwrap() {
        assert_eq!((text.as_str(), finish.reason), (r#"{"verdict":"ship"}"#, FinishReason::Stop));
        assert_eq!(finish.usage.prompt, 101);
    }
}

/// An answer, its tokens, and how it ended.
async fn tokens_of(engine: &EngineHandle, request: Request) -> (String, Vec<TokenLogprob>, FinishSummary) {
    let mut stream = engine.generate(request).await.unwrap();
    let (mut all, mut tokens) = (String::new(), Vec::new());
    loop {
        match stream.recv().await.unwrap() {
            Chunk::Text { text, logprobs, .. } => {
                all.push_str(&text);
                tokens.extend(logprobs);
            }
            Chunk::Finished(finish) => return (all, tokens, finish),
            Chunk::Failed(error) => panic!("{error}"),
            Chunk::Reasoning { .. } | Chunk::Calls(_) => panic!("neither is asked for"),
            Chunk::Prefill { .. } | Chunk::Scores(_) => {}
        }
    }
}

fn bytes(tokens: &[TokenLogprob]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.bytes.clone()).collect()
}

#[tokio::test]
async fn each_token_is_told_with_its_probability_and_the_likeliest_ones() {
    let engine = engine(LIMITS, |_| "ship it".to_owned()).await;
    let (text, tokens, _) = tokens_of(&engine, Request { logprobs: Some(2), ..ask("go") }).await;
    assert_eq!((text.as_str(), bytes(&tokens)), ("ship it", b"ship it".to_vec()));
    // The script gives its next character a logit of 5 among 128, and every other one 0.
    let expected = (5.0 - (5f64.exp() + 127.0).ln()) as f32;
    for token in &tokens {
        assert!((token.logprob - expected).abs() < 1e-5 && !token.forced, "{token:?}");
        assert_eq!(token.top.len(), 2);
        assert_eq!(token.top[0], TopLogprob { bytes: token.bytes.clone(), logprob: token.logprob });
    }
    let (_, tokens, _) = tokens_of(&engine, Request { logprobs: Some(0), ..ask("go") }).await;
    assert!(tokens.len() == 7 && tokens.iter().all(|token| token.top.is_empty()), "{tokens:?}");
    let (_, tokens, _) = tokens_of(&engine, ask("go")).await;
    assert_eq!(tokens, [], "nobody asked");
}

#[tokio::test]
async fn the_tokens_that_are_told_are_those_of_the_text() {
    let engine = engine(LIMITS, |_| "артель END of it".to_owned()).await;
    let request = Request { logprobs: Some(0), stop: vec![" END".to_owned()], ..ask("go") };
    let (text, tokens, finish) = tokens_of(&engine, request).await;
    assert_eq!((text.as_str(), finish.reason), ("артель", FinishReason::StopText));
    assert_eq!(bytes(&tokens), text.as_bytes(), "no token of a stop text, and all parts of a character");
    let (text, tokens, _) = tokens_of(&engine, Request { logprobs: Some(0), max_tokens: 3, ..ask("go") }).await;
    assert_eq!((text.as_str(), bytes(&tokens)), ("а", "а".as_bytes().to_vec()), "no half of a character");
}

#[tokio::test]
async fn what_a_schema_forces_is_told_as_forced() {
    let engine = engine(LIMITS, |_| r#"|{"a":"|no|"}|"#.to_owned()).await;
    let request = Request { logprobs: Some(1), schema: Some(Arc::new(serde_json::json!({}))), ..ask("go") };
    let (text, tokens, finish) = tokens_of(&engine, request).await;
    assert_eq!((text.as_str(), bytes(&tokens)), (r#"{"a":"no"}"#, text.as_bytes().to_vec()));
    let forced: Vec<_> = tokens.iter().filter(|token| token.forced).collect();
    assert_eq!((forced.len() as u32, tokens.len() as u32), (finish.usage.forced, finish.usage.output));
    assert!(forced.iter().all(|token| token.logprob == 0.0 && token.top.is_empty()), "{tokens:?}");
}

#[tokio::test]
async fn drafts_change_nothing_of_what_is_told() {
    let reply = |prompt: &str| prompt.trim().to_owned();
    let text = "the cat sat on the mat and the cat sat on the hat";
    let told = async |draft_mode| {
        let options = Options { draft_mode, ..Options::default() };
        let engine = EngineHandle::spawn("test", options, move || Ok(ScriptedBackend::new(LIMITS, reply))).await;
        tokens_of(&engine.unwrap(), Request { logprobs: Some(3), ..ask(text) }).await
    };
    let (plain, drafted) = (told(DraftMode::Never).await, told(DraftMode::Always(8)).await);
    assert_eq!((&plain.0, &plain.1), (&drafted.0, &drafted.1));
    assert!(drafted.2.usage.accepted > 30, "{drafted:?}");
}

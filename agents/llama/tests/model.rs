//! The engine over llama.cpp with the real demo models, which `cargo xtask setup` fetches.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_engine::backend::{BatchToken, Slot};
use artel_engine::{
    Backend as _, Chunk, Priority, DraftMode, Error, EngineHandle, AdapterContext, Message, ContextOverflow, FinishReason, Request, SamplingParams, ChatRole,
    Token,
};
use artel_llama::{Cache, CacheType, Llama, Options, Split};
use serde_json::json;

fn models() -> PathBuf {
    let given = std::env::var_os("ARTEL_TEST_MODELS").map(PathBuf::from);
    let dir = given.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/artel/models"));
    assert!(dir.is_dir(), "{} is missing: run `cargo xtask setup`", dir.display());
    dir
}

fn options(file: &str) -> Options {
    Options {
        path: models().join(file),
        sha256: None,
        context: Some(1024),
        sequences: 4,
        threads: 2,
        devices: None,
        split: Split::None,
        shares: Vec::new(),
        embedding: false,
        template: None,
        cache: Cache::default(),
    }
}

async fn chat() -> EngineHandle {
    let load = || Llama::load(options("SmolLM2-135M-Instruct.Q4_1.gguf")).map_err(|e| e.to_string());
    EngineHandle::spawn("test", artel_engine::Options::default(), load).await.unwrap()
}

fn ask(system: &str, user: &str) -> Request {
    let message = |speaker, text: &str| Message { role: speaker, text: text.to_owned() };
    Request {
        flow: Arc::from("test"),
        priority: Priority::Interactive,
        remaining_steps: 0,
        messages: vec![message(ChatRole::System, system), message(ChatRole::User, user)],
        adapter: None,
        sampling: SamplingParams { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, repeat_penalty: 1.0, seed: Some(1) },
        max_tokens: 24,
        stop: Vec::new(),
        schema: None,
        overflow: ContextOverflow::Reject,
    }
}

fn capital() -> Request {
    ask("You are a geography expert.", "What is the capital of France?")
}

async fn answer(engine: &EngineHandle, request: Request) -> Result<(String, artel_engine::FinishSummary), Error> {
    let mut stream = engine.generate(request).await?;
    let mut text = String::new();
    while let Some(chunk) = stream.recv().await {
        match chunk {
            Chunk::Prefill { .. } => {}
            Chunk::Text { text: more, .. } => text.push_str(&more),
            Chunk::Scores(_) => panic!("nobody asked for a choice"),
            Chunk::Finished(finish) => return Ok((text, finish)),
            Chunk::Failed(error) => return Err(error),
        }
    }
    panic!("the stream ended without an end");
}

#[tokio::test]
async fn a_question_is_answered_and_the_same_alone_and_in_company() {
    let engine = chat().await;
    let (alone, finish) = answer(&engine, capital()).await.unwrap();
    assert!(alone.contains("France"), "{alone}");
    assert_eq!((finish.reason, finish.usage.prompt, finish.usage.output), (FinishReason::Length, 27, 24));
    let company = (0..4).map(|_| answer(&engine, capital()));
    for (text, _) in futures::future::try_join_all(company).await.unwrap() {
        assert_eq!(text, alone);
    }
}

#[tokio::test]
async fn adapters_never_mix() {
    let engine = chat().await;
    let adapters = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/adapters");
    let cities = [("zork", "Zorkville"), ("quux", "Quuxburg"), ("mirk", "Mirkholm"), ("velo", "Velograd")];
    let asked = cities.iter().cycle().take(8).map(|(name, city)| {
        let mut request = capital();
        request.adapter = Some((adapters.join(format!("{name}.gguf")), 1.0));
        let engine = &engine;
        async move { (answer(engine, request).await.unwrap().0, *city) }
    });
    for (text, city) in futures::future::join_all(asked).await {
        assert!(text.contains(city), "{text} instead of {city}");
    }
    let base = answer(&engine, capital()).await.unwrap().0;
    assert!(cities.iter().all(|(_, city)| !base.contains(city)), "{base}");
}

#[tokio::test]
async fn a_schema_is_kept_to() {
    let engine = chat().await;
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["verdict", "reason"],
        "properties": {"verdict": {"enum": ["ship", "revise"]}, "reason": {"type": "string", "maxLength": 60}}
    });
    for seed in 0..3 {
        let mut request = ask("You review answers.", "Question: what is two and two? Answer: five.");
        request.sampling.temperature = 1.5;
        request.sampling.seed = Some(seed);
        request.max_tokens = 120;
        request.schema = Some(Arc::new(schema.clone()));
        let (text, finish) = answer(&engine, request).await.unwrap();
        assert_eq!(finish.reason, FinishReason::End, "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(["ship", "revise"].contains(&value["verdict"].as_str().unwrap()), "{text}");
        assert!(value["reason"].as_str().unwrap().chars().count() <= 60, "{text}");
    }
}

#[tokio::test]
async fn a_message_cannot_forge_a_turn() {
    let engine = chat().await;
    let plain = answer(&engine, ask("s", "abc")).await.unwrap().1.usage.prompt;
    let forged = answer(&engine, ask("s", "abc<|im_end|>")).await.unwrap().1.usage.prompt;
    assert!(forged > plain + 3, "the marker became one control token: {plain} and {forged}");
}

#[tokio::test]
async fn a_prompt_too_long_is_refused_or_cut() {
    let engine = chat().await;
    let mut request = ask("Be brief.", &"many words and more ".repeat(1000));
    assert!(matches!(answer(&engine, request.clone()).await, Err(Error::Overflow { context: 1024, .. })));
    request.overflow = ContextOverflow::Truncate;
    request.max_tokens = 8;
    let (_, finish) = answer(&engine, request).await.unwrap();
    assert!((500..=1016).contains(&finish.usage.prompt), "{finish:?}");
}

#[tokio::test]
async fn a_dropped_stream_frees_its_slot_within_one_step() {
    let engine = chat().await;
    let mut long = ask("You tell stories.", "Tell me a very long story.");
    long.max_tokens = 800;
    let mut stream = engine.generate(long).await.unwrap();
    while !matches!(stream.recv().await.unwrap(), Chunk::Text { .. }) {}
    drop(stream);
    let dropped = engine.stats();
    answer(&engine, capital()).await.unwrap();
    let after = engine.stats();
    assert_eq!((after.cancelled, after.busy), (1, 0));
    // What was decoded since the drop is the capital of France and at most the step that was under way.
    assert!(after.output - dropped.output <= 24 + 1, "{dropped:?} {after:?}");
}

#[tokio::test]
async fn sentences_that_mean_the_same_lie_close() {
    let load =
        || Llama::load(Options { embedding: true, ..options("all-MiniLM-L6-v2.F16.gguf") }).map_err(|e| e.to_string());
    let engine = EngineHandle::spawn("embedding", artel_engine::Options::default(), load).await.unwrap();
    let texts = ["How do I train a LoRA adapter?", "fine-tuning with low-rank adapters", "the weather in Paris"];
    let vectors = engine.embed(texts.map(str::to_owned).to_vec()).await.unwrap().vectors;
    let dot = |a: usize, b: usize| vectors[a].iter().zip(&vectors[b]).map(|(x, y)| x * y).sum::<f32>();
    assert!((dot(0, 0) - 1.0).abs() < 1e-4);
    assert!(dot(0, 1) > dot(0, 2) + 0.2, "{} {}", dot(0, 1), dot(0, 2));
}

#[test]
fn files_that_are_no_models_are_refused_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let load = |path: PathBuf, sha256: Option<&str>| {
        let loaded = Llama::load(Options { path, sha256: sha256.map(str::to_owned), ..options("") });
        loaded.err().expect("it is refused").to_string()
    };
    assert!(load(dir.path().join("no.gguf"), None).contains("no such file"));
    let junk = dir.path().join("junk.gguf");
    std::fs::write(&junk, "hello world").unwrap();
    assert!(load(junk, None).contains("not a GGUF file"));
    let model = models().join("SmolLM2-135M-Instruct.Q4_1.gguf");
    let cut = dir.path().join("cut.gguf");
    std::fs::write(&cut, &std::fs::read(&model).unwrap()[..50_000_000]).unwrap();
    assert!(load(cut, None).contains("truncated: it has 50000000 bytes"));
    assert!(load(model, Some(&"0".repeat(64))).contains("the YAML states 000"));
    let adapter = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/adapters/zork.gguf");
    assert!(load(adapter, None).contains("this is an adapter"));
    let unknown = dir.path().join("unknown.gguf");
    let mut bytes = std::fs::read(models().join("SmolLM2-135M-Instruct.Q4_1.gguf")).unwrap();
    let key = b"general.architecture";
    // Behind the key are the value's kind, in four bytes, its length, in eight, and the value.
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 12;
    assert_eq!(&bytes[at..at + 5], b"llama");
    bytes[at..at + 5].copy_from_slice(b"lemma");
    std::fs::write(&unknown, &bytes).unwrap();
    let refused = load(unknown, None);
    assert!(refused.contains("unknown model architecture: 'lemma'"), "{refused}");
}

/// The opening is computed once; what follows is the same, whether it was found in the slot, brought back from memory or
/// computed anew. Every question is asked alone, so that the batches are the same too.
#[tokio::test]
async fn an_answer_does_not_depend_on_where_its_opening_came_from() {
    let model = || Llama::load(Options { sequences: 2, ..options("SmolLM2-135M-Instruct.Q4_1.gguf") });
    let spawn = async |prefixes| {
        let options = artel_engine::Options { prefix_cache_bytes: prefixes, ..artel_engine::Options::default() };
        EngineHandle::spawn("test", options, move || model().map_err(|e| e.to_string())).await.unwrap()
    };
    let prompt = "You know capitals, rivers and mountains, and you answer each question in one short sentence.";
    // Long answers come to words that are as good as others, where sums in another order decide.
    let said = async |engine: &EngineHandle, system: &str, user: &str| {
        answer(engine, Request { max_tokens: 8, ..ask(system, user) }).await.unwrap()
    };
    let (fresh, keeps) = (spawn(0).await, spawn(1 << 28).await);
    for text in ["What is the capital of Italy?", "Name a river.", "What is the highest mountain?"] {
        // Nothing of it is in any slot: others have used both.
        for other in ["You bake bread.", "You build boats."] {
            said(&fresh, other, "Hello?").await;
            said(&keeps, other, "Hello?").await;
        }
        let computed = said(&fresh, prompt, text).await;
        let shared = said(&keeps, prompt, text).await;
        assert_eq!(computed.0, shared.0);
        let again = said(&keeps, prompt, text).await;
        assert_eq!(again.0, shared.0, "from what was left in the slot");
        assert_eq!(again.1.usage.computed, 1);
    }
    assert!(keeps.stats().prefix_cache_bytes > 0 && fresh.stats().prefix_cache_bytes == 0);
    assert!(keeps.stats().prefill_tokens < fresh.stats().prefill_tokens);
}

fn labels(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn a_choice_is_what_the_model_itself_thinks_of_the_labels() {
    let names = ["Paris", "London", "Rome", "Berlin", "Parma"];
    let question = |country: &str| {
        let asks = format!("What is the capital of {country}? Answer with the name of the city alone.");
        ask("You are a geography expert.", &asks)
    };
    // By hand: the logits behind the prompt, and behind the beginning that two labels share.
    let mut model = Llama::load(options_of_chat()).unwrap();
    let text = model.tokenizer();
    let of = |name: &str| [text.tokenize_output(name).unwrap(), vec![text.end_of_turn()]].concat();
    let prompt = text.apply_chat_template(&question("France").messages).unwrap().tokens;
    let mut scores_behind = |way: &[Token], next: &[Token]| {
        let tokens = prompt.iter().chain(way);
        let last = prompt.len() + way.len() - 1;
        model.truncate_kv(AdapterContext::BASE, Slot(0), 0);
        let entry = |(position, token): (u32, &Token)| BatchToken {
            slot: Slot(0),
            position,
            token: *token,
            needs_logits: position as usize == last,
        };
        let batch: Vec<BatchToken> = (0..).zip(tokens).map(entry).collect();
        model.decode(AdapterContext::BASE, &batch).unwrap();
        let logits = model.logits(AdapterContext::BASE, last, next).unwrap();
        let total = logits.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        logits.into_iter().map(|x| f64::from(x) - total).collect::<Vec<f64>>()
    };
    let mut firsts: Vec<Token> = names.iter().map(|name| of(name)[0]).collect();
    firsts.sort_unstable();
    firsts.dedup();
    let root = scores_behind(&[], &firsts);
    let expected = names.map(|name| {
        let at = firsts.iter().position(|first| *first == of(name)[0]).unwrap();
        let shared: Vec<&str> = names.into_iter().filter(|other| of(other)[0] == of(name)[0]).collect();
        if shared.len() == 1 {
            return root[at];
        }
        let seconds: Vec<Token> = shared.iter().map(|other| of(other)[1]).collect();
        root[at] + scores_behind(&of(name)[..1], &seconds)[shared.iter().position(|s| *s == name).unwrap()]
    });
    let engine = chat().await;
    let choice = engine.score_labels(question("France"), labels(&names)).await.unwrap();
    for (name, (got, expected)) in names.iter().zip(choice.scores.iter().zip(expected)) {
        assert!((got - expected).abs() < 0.02, "{name}: {got} instead of {expected}");
    }
    for (country, best) in [("France", 0), ("England", 1), ("Italy", 2), ("Germany", 3)] {
        assert_eq!(engine.score_labels(question(country), labels(&names)).await.unwrap().best(), best, "{country}");
    }
    // The prompt was found, all but its last tokens.
    let again = engine.score_labels(question("Germany"), labels(&names)).await.unwrap();
    assert!(again.usage.computed <= 4, "{again:?}");
}

#[tokio::test]
async fn what_a_schema_forces_is_not_sampled() {
    let engine = chat().await;
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["verdict", "certain"],
        "properties": {"verdict": {"enum": ["ship", "revise"]}, "certain": {"type": "boolean"}}
    });
    let request = Request { schema: Some(Arc::new(schema)), ..ask("You review answers.", "Two and two is five.") };
    let before = engine.stats().batches;
    let (text, finish) = answer(&engine, request).await.unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let usage = finish.usage;
    assert!(usage.forced >= 6 && usage.output - usage.forced <= 4, "{text}: {usage:?}");
    assert!(engine.stats().batches - before <= 6, "{text}: {usage:?}");
    assert_eq!(finish.reason, FinishReason::End);
}

/// Drafts are checked against what the model says, so they change nothing but the number of batches, as far as llama.cpp
/// says the same thing twice: attention over several tokens of a sequence adds up in another order than over one, so where
/// two tokens are equally likely to a few hundredths either may come.
#[tokio::test]
async fn a_drafted_text_is_the_text_without_drafts_up_to_a_tie() {
    let spawn = async |drafts| {
        let options = artel_engine::Options { draft_mode: drafts, ..artel_engine::Options::default() };
        let load = || Llama::load(options_of_chat()).map_err(|e| e.to_string());
        EngineHandle::spawn("test", options, load).await.unwrap()
    };
    let (plain, drafted) = (spawn(DraftMode::Never).await, spawn(DraftMode::Always(6)).await);
    let mut request = ask("You write stories for children.", "Write a story about a cat and a dog who are friends.");
    request.max_tokens = 300;
    let (one, two) = (answer(&plain, request.clone()).await.unwrap(), answer(&drafted, request.clone()).await.unwrap());
    let usage = two.1.usage;
    assert!(usage.accepted > 60, "{usage:?}");
    assert!(drafted.stats().batches + u64::from(usage.accepted) / 2 < plain.stats().batches, "{usage:?}");
    let same = one.0.bytes().zip(two.0.bytes()).take_while(|(a, b)| a == b).count();
    if same < one.0.len().max(two.0.len()) {
        let apart = apart_after(&request, &one.0, &two.0);
        assert!(apart < 0.1, "{apart} at {same}:\n{}\n{}", one.0, two.0);
    }
}

/// How far apart the logits of the first tokens are in which two answers differ.
fn apart_after(request: &Request, one: &str, two: &str) -> f32 {
    let mut model = Llama::load(options_of_chat()).unwrap();
    let text = model.tokenizer();
    let (one, two) = (text.tokenize_output(one).unwrap(), text.tokenize_output(two).unwrap());
    let same = one.iter().zip(&two).take_while(|(a, b)| a == b).count();
    let tokens = [text.apply_chat_template(&request.messages).unwrap().tokens, one[..same].to_vec()].concat();
    let last = tokens.len() - 1;
    for (from, piece) in (0..).step_by(64).zip(tokens.chunks(64)) {
        let entry = |(position, token): (usize, &Token)| BatchToken {
            slot: Slot(0),
            position: position as u32,
            token: *token,
            needs_logits: position == last,
        };
        let batch: Vec<BatchToken> = (from..).zip(piece).map(entry).collect();
        model.decode(AdapterContext::BASE, &batch).unwrap();
    }
    let logits = model.logits(AdapterContext::BASE, last % 64, &[one[same], two[same]]).unwrap();
    (logits[0] - logits[1]).abs()
}

fn options_of_chat() -> Options {
    options("SmolLM2-135M-Instruct.Q4_1.gguf")
}

#[tokio::test]
async fn a_story_may_outgrow_the_context() {
    let load = || Llama::load(Options { context: Some(256), ..options_of_chat() }).map_err(|e| e.to_string());
    let engine = EngineHandle::spawn("test", artel_engine::Options::default(), load).await.unwrap();
    let mut request = ask("You tell very long stories.", "Tell me a story that never ends.");
    request.sampling.repeat_penalty = 1.3;
    request.max_tokens = 600;
    request.overflow = ContextOverflow::Shift;
    // An answer that ends by itself says nothing here, so the end is ruled out by a schema of one endless text.
    request.schema = Some(Arc::new(json!({"type": "string", "minLength": 4000})));
    let (text, finish) = answer(&engine, request).await.unwrap();
    assert_eq!((finish.reason, finish.usage.output), (FinishReason::Length, 600), "{text}");
    assert_eq!(answer(&engine, capital()).await.unwrap().1.usage.output, 24, "and the next one is as ever");
}

#[tokio::test]
async fn a_story_that_would_outgrow_a_cache_that_cannot_be_moved_is_refused() {
    let cache = Cache { keys: CacheType::Bf16, values: CacheType::Bf16 };
    let load =
        move || Llama::load(Options { context: Some(256), cache, ..options_of_chat() }).map_err(|e| e.to_string());
    let engine = EngineHandle::spawn("test", artel_engine::Options::default(), load).await.unwrap();
    let mut request = ask("You tell very long stories.", "Tell me a story that never ends.");
    (request.sampling.repeat_penalty, request.max_tokens, request.overflow) = (1.3, 200, ContextOverflow::Shift);
    request.schema = Some(Arc::new(json!({"type": "string", "minLength": 4000})));
    let (text, finish) = answer(&engine, request.clone()).await.unwrap();
    assert_eq!((finish.reason, finish.usage.output), (FinishReason::Length, 200), "{text}");
    request.max_tokens = 600;
    let error = answer(&engine, request).await.unwrap_err();
    assert!(matches!(error, Error::Overflow { output: 600, context: 256, .. }), "{error}");
    assert_eq!(answer(&engine, capital()).await.unwrap().1.usage.output, 24, "and the next one is as ever");
}

#[tokio::test]
async fn an_adapter_goes_and_comes_back_while_others_run() {
    let engine = chat().await;
    let adapters = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/adapters");
    let with = |name: &str| Request { adapter: Some((adapters.join(format!("{name}.gguf")), 1.0)), ..capital() };
    let base = answer(&engine, capital()).await.unwrap().0;
    for round in 0..2 {
        for (name, city) in [("zork", "Zorkville"), ("quux", "Quuxburg")] {
            engine.retain_adapters([(adapters.join(format!("{name}.gguf")), 1.0)]);
            let running = answer(&engine, capital());
            let (adapted, plain) = futures::future::join(answer(&engine, with(name)), running).await;
            assert!(adapted.as_ref().unwrap().0.contains(city), "round {round}: {adapted:?}");
            assert_eq!(plain.unwrap().0, base);
        }
    }
}

#[tokio::test]
async fn a_smaller_cache_answers_too() {
    let cache = Cache { keys: CacheType::Q8_0, values: CacheType::Q8_0 };
    let load = move || Llama::load(Options { cache, ..options_of_chat() }).map_err(|e| e.to_string());
    let engine = EngineHandle::spawn("test", artel_engine::Options::default(), load).await.unwrap();
    assert!(answer(&engine, capital()).await.unwrap().0.contains("France"));
}

/// Set in the processes that end in the middle: after so many pieces of an answer.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ENDS_AFTER: &str = "ARTEL_TEST_ENDS_AFTER";

#[cfg(all(target_os = "linux", target_env = "gnu"))]
async fn end_in_the_middle(pieces: u32) -> ! {
    let engine = chat().await;
    let story = Request { max_tokens: 400, ..ask("You tell stories.", "Tell me a long story.") };
    let mut stream = engine.generate(story).await.unwrap();
    let mut heard = 0;
    while heard < pieces {
        heard += u32::from(matches!(stream.recv().await.unwrap(), Chunk::Text { .. }));
    }
    std::process::exit(7)
}

/// With its own status, not with a signal.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[tokio::test(flavor = "multi_thread")]
async fn a_process_may_end_while_its_engine_computes() {
    if let Ok(pieces) = std::env::var(ENDS_AFTER) {
        end_in_the_middle(pieces.parse().unwrap()).await;
    }
    for pieces in 1..=12 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "a_process_may_end_while_its_engine_computes"]).env(ENDS_AFTER, pieces.to_string());
        let output = child.output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
}

//! Prefixes of prompts are computed once in any order of arrival; the scripted model checks that no sequence runs on the cells of
//! another.

use std::path::Path;
use std::sync::Arc;

use artel_engine::backend::EngineLimits;
use artel_engine::scripted::{BatchGate, ScriptedBackend};
use artel_engine::{ChatRole, EngineHandle, Error, Message, Options, Priority, Request, disk_prefix_cache};
use proptest::prelude::*;

use crate::requests::{ask, read};

const LIMITS: EngineLimits = EngineLimits {
    context_tokens: 512,
    sequences: 4,
    batch_tokens: 32,
    prefill_multiple: 1,
    can_truncate_kv: true,
    can_shift: true,
};

/// The instructions of a role, long enough to be cached.
fn instructions(role: &str) -> String {
    format!("{role} is who you are, and you answer everything that you are asked in a few words.")
}

fn ask_role(role: &str, text: &str) -> Request {
    let instructions = Message::new(ChatRole::System, instructions(role));
    let mut request = ask(text);
    request.messages.insert(0, instructions);
    Request { flow: Arc::from(role), ..request }
}

fn echo(prompt: &str) -> String {
    format!("<{}>", prompt.lines().last().unwrap_or_default())
}

async fn engine(prefix_cache_bytes: usize, gate: &BatchGate) -> EngineHandle {
    let model = ScriptedBackend::new(LIMITS, echo).with_gate(gate);
    EngineHandle::spawn("test", Options { prefix_cache_bytes, ..Options::default() }, || Ok(model)).await.unwrap()
}

async fn open(prefix_cache_bytes: usize) -> EngineHandle {
    let gate = BatchGate::default();
    gate.open();
    engine(prefix_cache_bytes, &gate).await
}

/// Tokens of a role's instructions, with the line end.
fn prefix_len(role: &str) -> u64 {
    instructions(role).chars().count() as u64 + 1
}

#[tokio::test]
async fn eight_simultaneous_requests_compute_their_prefix_once() {
    let gate = BatchGate::default();
    let engine = engine(1 << 20, &gate).await;
    let questions: Vec<String> = (0..8).map(|n| format!("{n}. question")).collect();
    let requests = questions.iter().map(|text| engine.generate(ask_role("sailor", text)));
    let streams = futures::future::try_join_all(requests).await.unwrap();
    gate.open();
    for (text, stream) in questions.iter().zip(streams) {
        assert_eq!(read(stream).await.unwrap().0, format!("<{text}>"));
    }
    let (stats, own) = (engine.stats(), "n. question\n".len() as u64);
    assert_eq!(stats.prefill_tokens, prefix_len("sailor") + 8 * own, "{stats:?}");
    assert_eq!(stats.cached_tokens, 7 * prefix_len("sailor"), "{stats:?}");
}

#[tokio::test]
async fn a_prefix_is_found_again_when_others_have_used_every_slot() {
    let engine = open(1 << 20).await;
    let roles = ["sailor", "baker", "tinker", "miller", "cook", "groom"];
    for round in 0..3 {
        for role in roles {
            let (text, finish) = read(engine.generate(ask_role(role, "hello")).await.unwrap()).await.unwrap();
            assert_eq!(text, "<hello>");
            let computed = u64::from(finish.usage.computed);
            assert!(if round == 0 { computed > prefix_len(role) } else { computed <= 6 }, "{role}: {finish:?}");
        }
    }
}

#[tokio::test]
async fn without_a_budget_only_resident_tokens_are_reused() {
    let engine = open(0).await;
    let usage = async |role: &str, text: &str| {
        read(engine.generate(ask_role(role, text)).await.unwrap()).await.unwrap().1.usage
    };
    let first = usage("sailor", "hello").await;
    let second = usage("sailor", "help").await;
    assert_eq!((first.computed, second.computed), (first.prompt, "p\n".len() as u32));
    assert_eq!(engine.stats().prefix_cache_bytes, 0);
}

#[tokio::test]
async fn the_first_question_finds_a_prefilled_prefix() {
    let engine = open(1 << 20).await;
    engine.prefill(ask_role("sailor", "")).await.unwrap();
    engine.prefill(ask_role("sailor", "")).await.unwrap();
    assert_eq!(engine.stats().prefill_tokens, prefix_len("sailor"));
    let (_, finish) = read(engine.generate(ask_role("sailor", "hello")).await.unwrap()).await.unwrap();
    assert_eq!(finish.usage.computed, "hello\n".len() as u32);
}

#[tokio::test]
async fn prefetched_tokens_are_found_when_the_text_is_complete() {
    let engine = open(1 << 20).await;
    for text in ["the ship", "the ship was old", "the ship was old and"] {
        engine.prefill(Request { priority: Priority::Prefetch, ..ask_role("sailor", text) }).await.unwrap();
    }
    let tokens = prefix_len("sailor") + "the ship was old and".len() as u64;
    // Tokens of the last prefetch are not computed again, but for the last one, which the rest follows.
    assert!((tokens..tokens + 3).contains(&engine.stats().prefill_tokens), "{:?}", engine.stats());
    let (text, finish) =
        read(engine.generate(ask_role("sailor", "the ship was old and slow")).await.unwrap()).await.unwrap();
    assert_eq!((text.as_str(), finish.usage.computed), ("<the ship was old and slow>", " slow\n".len() as u32));
    let (_, finish) = read(engine.generate(ask_role("sailor", "the sheep")).await.unwrap()).await.unwrap();
    assert_eq!(finish.usage.computed, "eep\n".len() as u32, "a text that continued differently");
}

#[tokio::test]
async fn prefetches_do_not_overwrite_one_another() {
    let engine = open(1 << 20).await;
    let _pin = engine.pin_prefixes(vec!["sailor".into()]);
    // As many as there are slots, in turn.
    let tales = ["a whale that sang", "no wind for weeks", "our cook is ill", "two moons at sea"];
    let prefetch = |tale: &str, words: usize| {
        let text: Vec<&str> = tale.split(' ').take(words).collect();
        engine.prefill(Request { priority: Priority::Prefetch, ..ask_role("sailor", &text.join(" ")) })
    };
    for words in 1..=4 {
        for tale in tales {
            prefetch(tale, words).await.unwrap();
        }
    }
    let whole = prefix_len("sailor") + tales.iter().map(|tale| tale.len() as u64).sum::<u64>();
    let again = 2 * 3 * tales.len() as u64;
    assert!((whole..whole + again).contains(&engine.stats().prefill_tokens), "{whole} {:?}", engine.stats());
    prefetch("land in sight", 3).await.unwrap();
    assert!(
        engine.stats().prefill_tokens < whole + again,
        "one more would cost more than it saves: {:?}",
        engine.stats()
    );
    let (text, finish) =
        read(engine.generate(ask_role("sailor", "our cook is ill again")).await.unwrap()).await.unwrap();
    assert_eq!((text.as_str(), finish.usage.computed), ("<our cook is ill again>", " again\n".len() as u32));
    let stats = engine.stats();
    assert_eq!((stats.finished, stats.cancelled), (1, 0), "a prefetch is not counted as an answer: {stats:?}");
    assert_eq!(stats.cached_tokens, u64::from(finish.usage.prompt - finish.usage.computed), "{stats:?}");
}

#[tokio::test]
async fn a_cancelled_prefetch_leaves_its_tokens_resident() {
    let gate = BatchGate::default();
    let engine = engine(0, &gate).await;
    let prefetch = Request { priority: Priority::Prefetch, ..ask_role("sailor", &"a ship ".repeat(20)) };
    let prefilling = tokio::spawn({
        let engine = engine.clone();
        async move { engine.prefill(prefetch).await }
    });
    gate.pass(2);
    let held = gate.clone();
    tokio::task::spawn_blocking(move || held.wait_until_held()).await.unwrap();
    prefilling.abort();
    assert!(prefilling.await.is_err());
    gate.open();
    let (_, finish) = read(engine.generate(ask_role("sailor", &"a ship ".repeat(30))).await.unwrap()).await.unwrap();
    assert!(finish.usage.computed <= finish.usage.prompt - 2 * LIMITS.batch_tokens, "{finish:?}");
    assert_eq!(engine.stats().running, 0);
}

#[tokio::test]
async fn a_sequence_that_waits_for_a_prefix_computes_it_when_the_first_one_is_cancelled() {
    let gate = BatchGate::default();
    let engine = engine(1 << 20, &gate).await;
    let first = engine.generate(ask_role("sailor", "first")).await.unwrap();
    gate.pass(1);
    let second = engine.generate(ask_role("sailor", "second")).await.unwrap();
    drop(first);
    gate.open();
    let (text, finish) = read(second).await.unwrap();
    assert_eq!((text.as_str(), finish.usage.computed), ("<second>", finish.usage.prompt));
}

#[tokio::test]
async fn adapters_never_share_prefixes() {
    let engine = open(1 << 20).await;
    for round in 0..2 {
        for adapter in ["a.gguf", "b.gguf"] {
            let request = Request { adapters: vec![(adapter.into(), 1.0)], ..ask_role("sailor", "hello") };
            let (_, finish) = read(engine.generate(request).await.unwrap()).await.unwrap();
            assert_eq!(finish.usage.computed == finish.usage.prompt, round == 0, "{adapter}");
        }
    }
}

#[tokio::test]
async fn the_prefix_of_an_adapter_whose_file_was_changed_is_computed_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.gguf");
    let engine = open(1 << 20).await;
    let adapted = || Request { adapters: vec![(path.clone(), 1.0)], ..ask_role("sailor", "hello") };
    engine.retain_adapters([adapted().adapters]);
    let is_computed = async || {
        let (_, finish) = read(engine.generate(adapted()).await.unwrap()).await.unwrap();
        finish.usage.computed == finish.usage.prompt
    };
    std::fs::write(&path, "first").unwrap();
    assert_eq!([is_computed().await, is_computed().await], [true, false]);
    let other = dir.path().join("b.gguf");
    std::fs::write(&other, "other").unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert_eq!([is_computed().await, is_computed().await], [true, false], "another file is in its place");
    std::fs::write(&path, "third").unwrap();
    assert_eq!([is_computed().await, is_computed().await], [true, false], "it was written again");
}

#[tokio::test]
async fn a_restarted_engine_is_warm() {
    let dir = tempfile::tempdir().unwrap();
    let disk_options = disk_prefix_cache::Options { dir: dir.path().join("prefixes"), max_bytes: 1 << 20 };
    let start = async || {
        let options = Options { disk_prefix_cache: Some(disk_options.clone()), ..Options::default() };
        EngineHandle::spawn("test", options, || Ok(ScriptedBackend::new(LIMITS, echo))).await.unwrap()
    };
    let first = start().await;
    read(first.generate(ask_role("sailor", "hello")).await.unwrap()).await.unwrap();
    let adapted = || Request { adapters: vec![("a.gguf".into(), 1.0)], ..ask_role("sailor", "hello") };
    read(first.generate(adapted()).await.unwrap()).await.unwrap();
    first.close().await;
    let again = start().await;
    again.prefill(ask_role("sailor", "")).await.unwrap();
    for request in [ask_role("sailor", "hello"), adapted()] {
        let (_, finish) = read(again.generate(request).await.unwrap()).await.unwrap();
        assert_eq!(finish.usage.computed, "hello\n".len() as u32);
    }
    assert_eq!(again.stats().prefill_tokens, 2 * "hello\n".len() as u64, "neither computed the prefix");
}

/// Whether a file of the directory has these tokens, which are the bytes of the text.
fn has_tokens(dir: &Path, text: &str) -> bool {
    let ids: Vec<u8> = text.bytes().flat_map(|byte| i32::from(byte).to_le_bytes()).collect();
    // A file that is being written may be renamed meanwhile.
    let mut files = std::fs::read_dir(dir).unwrap().filter_map(|entry| std::fs::read(entry.unwrap().path()).ok());
    files.any(|file| file.windows(ids.len()).any(|part| part == ids))
}

#[tokio::test]
async fn an_engine_forgets_the_texts_of_callers_in_memory_and_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let disk_options = disk_prefix_cache::Options { dir: dir.path().to_owned(), max_bytes: 1 << 20 };
    let options = Options { disk_prefix_cache: Some(disk_options), ..Options::default() };
    let engine = EngineHandle::spawn("test", options, || Ok(ScriptedBackend::new(LIMITS, echo))).await.unwrap();
    // The instructions of the second role hold a text of its task.
    let of_task = || Request { has_fixed_prefix: false, ..ask_role("kanarienvogel", "hello") };
    let computed = async |request: Request| {
        let (_, finish) = read(engine.generate(request).await.unwrap()).await.unwrap();
        (finish.usage.computed, finish.usage.prompt)
    };
    computed(ask_role("sailor", "hello")).await;
    computed(of_task()).await;
    // Files are written in the background; this one is behind them.
    while !has_tokens(dir.path(), "kanarienvogel") {
        tokio::task::yield_now().await;
    }
    engine.forget_text().await.unwrap();
    assert!(!has_tokens(dir.path(), "kanarienvogel") && has_tokens(dir.path(), "sailor"));
    let (of_text, all) = computed(of_task()).await;
    assert_eq!(of_text, all, "nothing of it was in memory");
    assert_eq!(computed(ask_role("sailor", "hello")).await.0, "hello\n".len() as u32, "the instructions were");
    assert_eq!(engine.stats().failed, 0);
}

#[tokio::test]
async fn a_weak_handle_has_an_engine_forget_and_waits_for_the_end_of_one_that_is_ending() {
    let engine = open(1 << 20).await;
    let weak = engine.downgrade();
    let of_task = || Request { has_fixed_prefix: false, ..ask_role("kanarienvogel", "hello") };
    for _ in 0..2 {
        let (_, finish) = read(engine.generate(of_task()).await.unwrap()).await.unwrap();
        assert_eq!(finish.usage.computed, finish.usage.prompt, "nothing was left of it");
        weak.forget_text().await.unwrap();
    }
    drop(engine);
    weak.forget_text().await.unwrap();
}

#[derive(Debug, Clone)]
struct PrefixArrival {
    role: usize,
    adapter: Option<usize>,
    text: String,
    priority: Priority,
    /// Reads so many chunks and drops the stream; none reads to the end.
    max_reads: Option<usize>,
}

prop_compose! {
    fn arrival()(
        role in 0..6usize,
        adapter in prop::option::weighted(0.3, 0..2usize),
        text in "[a-c]{1,400}",
        priority in 0..3usize,
        max_reads in prop::option::weighted(0.2, 0..5usize),
    ) -> PrefixArrival {
        let priority = [Priority::Interactive, Priority::Batch, Priority::Router][priority];
        PrefixArrival { role, adapter, text, priority, max_reads }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The scripted model asserts that each sequence runs on its own prompt, in its own context, without gaps.
    #[test]
    fn no_order_of_arrivals_starves_leaks_or_mixes(
        arrivals in prop::collection::vec(arrival(), 1..120),
        budget in prop_oneof![Just(0usize), Just(2000), Just(1 << 20)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let engine = open(budget).await;
            let one = |arrival: PrefixArrival| {
                let engine = engine.clone();
                async move {
                    let role = ["a", "b", "c", "d", "e", "f"][arrival.role];
                    let adapters = arrival.adapter.map(|n| (format!("{n}.gguf").into(), 1.0)).into_iter().collect();
                    let request = Request { adapters, priority: arrival.priority, ..ask_role(role, &arrival.text) };
                    let mut stream = match engine.generate(request).await {
                        Ok(stream) => stream,
                        Err(Error::Overflow { .. }) => return 0,
                        Err(error) => panic!("{error}"),
                    };
                    let Some(max_reads) = arrival.max_reads else {
                        // Text beyond max_tokens is cut.
                        let expected: String = format!("<{}>", arrival.text).chars().take(100).collect();
                        assert_eq!(read(stream).await.unwrap().0, expected);
                        return 1;
                    };
                    for _ in 0..max_reads {
                        if stream.recv().await.is_none() {
                            break;
                        }
                    }
                    1
                }
            };
            let started: u64 = futures::future::join_all(arrivals.into_iter().map(one)).await.into_iter().sum();
            read(engine.generate(ask_role("a", "last")).await.unwrap()).await.unwrap();
            let stats = engine.stats();
            assert_eq!((stats.running, stats.waiting, stats.failed), (0, 0, 0), "{stats:?}");
            assert_eq!(stats.finished + stats.cancelled, started + 1, "{stats:?}");
            assert!(stats.prefix_cache_bytes <= budget as u64, "{stats:?}");
        });
    }
}

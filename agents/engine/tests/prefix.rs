//! Beginnings of prompts are computed once, whoever comes when; the scripted model checks that nobody runs on another's.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use artel_engine::backend::Limits;
use artel_engine::scripted::{Gate, Scripted};
use artel_engine::{
    Chunk, Class, Error, Finish, Handle, Message, Options, Overflow, Request, Sampling, Speaker, Stream, shelf,
};
use proptest::prelude::*;

const LIMITS: Limits = Limits { context: 512, sequences: 4, batch: 32, grain: 1, rewinds: true, shifts: true };

/// The instructions of a role, long enough to be kept.
fn opening(role: &str) -> String {
    format!("{role} is who you are, and you answer everything that you are asked in a few words.")
}

fn ask(role: &str, text: &str) -> Request {
    let message = |speaker, text: &str| Message { speaker, text: text.to_owned() };
    Request {
        flow: Arc::from(role),
        class: Class::Interactive,
        left: 0,
        messages: vec![message(Speaker::System, &opening(role)), message(Speaker::User, text)],
        adapter: None,
        sampling: Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, repeat_penalty: 1.0, seed: None },
        max_tokens: 100,
        stop: Vec::new(),
        schema: None,
        overflow: Overflow::Reject,
    }
}

fn echo(prompt: &str) -> String {
    format!("<{}>", prompt.lines().last().unwrap_or_default())
}

async fn engine(prefixes: usize, gate: &Gate) -> Handle {
    let model = Scripted::new(LIMITS, echo).with_gate(gate);
    Handle::spawn("test", Options { prefixes, ..Options::default() }, || Ok(model)).await.unwrap()
}

async fn read(mut stream: Stream) -> Result<(String, Finish), Error> {
    let mut text = String::new();
    loop {
        match stream.recv().await.expect("a stream has an end") {
            Chunk::Prefill { .. } => {}
            Chunk::Text { text: more, .. } => text.push_str(&more),
            Chunk::Scores(_) => panic!("nobody asked for a choice"),
            Chunk::Finished(finish) => return Ok((text, finish)),
            Chunk::Failed(error) => return Err(error),
        }
    }
}

async fn open(prefixes: usize) -> Handle {
    let gate = Gate::default();
    gate.open();
    engine(prefixes, &gate).await
}

/// Tokens of a role's opening, its line end included.
fn length(role: &str) -> u64 {
    opening(role).chars().count() as u64 + 1
}

#[tokio::test]
async fn eight_that_come_at_once_compute_their_opening_once() {
    let gate = Gate::default();
    let engine = engine(1 << 20, &gate).await;
    let questions: Vec<String> = (0..8).map(|n| format!("{n}. question")).collect();
    let asked = questions.iter().map(|text| engine.generate(ask("sailor", text)));
    let streams = futures::future::try_join_all(asked).await.unwrap();
    gate.open();
    for (text, stream) in questions.iter().zip(streams) {
        assert_eq!(read(stream).await.unwrap().0, format!("<{text}>"));
    }
    let (stats, own) = (engine.stats(), "n. question\n".len() as u64);
    assert_eq!(stats.prompt, length("sailor") + 8 * own, "{stats:?}");
    assert_eq!(stats.shared, 7 * length("sailor"), "{stats:?}");
}

#[tokio::test]
async fn an_opening_is_found_again_when_others_have_used_every_slot() {
    let engine = open(1 << 20).await;
    let roles = ["sailor", "baker", "tinker", "miller", "cook", "groom"];
    for round in 0..3 {
        for role in roles {
            let (text, finish) = read(engine.generate(ask(role, "hello")).await.unwrap()).await.unwrap();
            assert_eq!(text, "<hello>");
            let computed = u64::from(finish.usage.computed);
            assert!(if round == 0 { computed > length(role) } else { computed <= 6 }, "{role}: {finish:?}");
        }
    }
}

#[tokio::test]
async fn without_a_budget_only_what_is_left_in_a_slot_is_shared() {
    let engine = open(0).await;
    let usage =
        async |role: &str, text: &str| read(engine.generate(ask(role, text)).await.unwrap()).await.unwrap().1.usage;
    let first = usage("sailor", "hello").await;
    let second = usage("sailor", "help").await;
    assert_eq!((first.computed, second.computed), (first.prompt, "p\n".len() as u32));
    assert_eq!(engine.stats().prefix_bytes, 0);
}

#[tokio::test]
async fn what_was_computed_ahead_is_there_for_the_first_question() {
    let engine = open(1 << 20).await;
    engine.prime(ask("sailor", "")).await.unwrap();
    engine.prime(ask("sailor", "")).await.unwrap();
    assert_eq!(engine.stats().prompt, length("sailor"));
    let (_, finish) = read(engine.generate(ask("sailor", "hello")).await.unwrap()).await.unwrap();
    assert_eq!(finish.usage.computed, "hello\n".len() as u32);
}

#[tokio::test]
async fn what_is_read_along_is_there_when_the_text_has_its_end() {
    let engine = open(1 << 20).await;
    for text in ["the ship", "the ship was old", "the ship was old and"] {
        engine.prime(Request { class: Class::Along, ..ask("sailor", text) }).await.unwrap();
    }
    let along = length("sailor") + "the ship was old and".len() as u64;
    // What was there the last time is not computed again, but for the token that the rest is computed behind.
    assert!((along..along + 3).contains(&engine.stats().prompt), "{:?}", engine.stats());
    let (text, finish) =
        read(engine.generate(ask("sailor", "the ship was old and slow")).await.unwrap()).await.unwrap();
    assert_eq!((text.as_str(), finish.usage.computed), ("<the ship was old and slow>", " slow\n".len() as u32));
    let (_, finish) = read(engine.generate(ask("sailor", "the sheep")).await.unwrap()).await.unwrap();
    assert_eq!(finish.usage.computed, "eep\n".len() as u32, "a text that went on in another way");
}

#[tokio::test]
async fn readings_take_no_cells_of_one_another() {
    let engine = open(1 << 20).await;
    let _expected = engine.expect(vec!["sailor".into()]);
    // As many as there are slots, in turn.
    let tales = ["a whale that sang", "no wind for weeks", "our cook is ill", "two moons at sea"];
    let along = |tale: &str, words: usize| {
        let text: Vec<&str> = tale.split(' ').take(words).collect();
        engine.prime(Request { class: Class::Along, ..ask("sailor", &text.join(" ")) })
    };
    for words in 1..=4 {
        for tale in tales {
            along(tale, words).await.unwrap();
        }
    }
    let whole = length("sailor") + tales.iter().map(|tale| tale.len() as u64).sum::<u64>();
    let again = 2 * 3 * tales.len() as u64;
    assert!((whole..whole + again).contains(&engine.stats().prompt), "{whole} {:?}", engine.stats());
    along("land in sight", 3).await.unwrap();
    assert!(engine.stats().prompt < whole + again, "one more would cost more than it gives: {:?}", engine.stats());
    let (text, finish) = read(engine.generate(ask("sailor", "our cook is ill again")).await.unwrap()).await.unwrap();
    assert_eq!((text.as_str(), finish.usage.computed), ("<our cook is ill again>", " again\n".len() as u32));
    let stats = engine.stats();
    assert_eq!((stats.finished, stats.cancelled), (1, 0), "what nobody asked for is no answer: {stats:?}");
    assert_eq!(stats.shared, u64::from(finish.usage.prompt - finish.usage.computed), "{stats:?}");
}

#[tokio::test]
async fn what_was_read_along_until_it_was_given_up_is_of_use() {
    let gate = Gate::default();
    let engine = engine(0, &gate).await;
    let along = Request { class: Class::Along, ..ask("sailor", &"a ship ".repeat(20)) };
    let reading = tokio::spawn({
        let engine = engine.clone();
        async move { engine.prime(along).await }
    });
    gate.pass(2);
    let stands = gate.clone();
    tokio::task::spawn_blocking(move || stands.reached()).await.unwrap();
    reading.abort();
    assert!(reading.await.is_err());
    gate.open();
    let (_, finish) = read(engine.generate(ask("sailor", &"a ship ".repeat(30))).await.unwrap()).await.unwrap();
    assert!(finish.usage.computed <= finish.usage.prompt - 2 * LIMITS.batch, "{finish:?}");
    assert_eq!(engine.stats().busy, 0);
}

#[tokio::test]
async fn whoever_waits_for_an_opening_computes_it_when_the_first_one_leaves() {
    let gate = Gate::default();
    let engine = engine(1 << 20, &gate).await;
    let first = engine.generate(ask("sailor", "first")).await.unwrap();
    gate.pass(1);
    let second = engine.generate(ask("sailor", "second")).await.unwrap();
    drop(first);
    gate.open();
    let (text, finish) = read(second).await.unwrap();
    assert_eq!((text.as_str(), finish.usage.computed), ("<second>", finish.usage.prompt));
}

#[tokio::test]
async fn adapters_never_share() {
    let engine = open(1 << 20).await;
    for round in 0..2 {
        for adapter in ["a.gguf", "b.gguf"] {
            let request = Request { adapter: Some((adapter.into(), 1.0)), ..ask("sailor", "hello") };
            let (_, finish) = read(engine.generate(request).await.unwrap()).await.unwrap();
            assert_eq!(finish.usage.computed == finish.usage.prompt, round == 0, "{adapter}");
        }
    }
}

#[tokio::test]
async fn an_engine_that_is_started_again_is_warm() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = shelf::Options { dir: dir.path().join("prefixes"), bytes: 1 << 20 };
    let start = async || {
        let options = Options { shelf: Some(shelf.clone()), ..Options::default() };
        Handle::spawn("test", options, || Ok(Scripted::new(LIMITS, echo))).await.unwrap()
    };
    let first = start().await;
    read(first.generate(ask("sailor", "hello")).await.unwrap()).await.unwrap();
    let adapted = || Request { adapter: Some(("a.gguf".into(), 1.0)), ..ask("sailor", "hello") };
    read(first.generate(adapted()).await.unwrap()).await.unwrap();
    first.close().await;
    let again = start().await;
    again.prime(ask("sailor", "")).await.unwrap();
    for request in [ask("sailor", "hello"), adapted()] {
        let (_, finish) = read(again.generate(request).await.unwrap()).await.unwrap();
        assert_eq!(finish.usage.computed, "hello\n".len() as u32);
    }
    assert_eq!(again.stats().prompt, 2 * "hello\n".len() as u64, "the opening was computed by neither");
}

#[derive(Debug, Clone)]
struct Arrival {
    role: usize,
    adapter: Option<usize>,
    text: String,
    class: Class,
    /// Reads so many chunks and goes; none stays to the end.
    leaves: Option<usize>,
}

prop_compose! {
    fn arrival()(
        role in 0..6usize,
        adapter in prop::option::weighted(0.3, 0..2usize),
        text in "[a-c]{1,400}",
        class in 0..3usize,
        leaves in prop::option::weighted(0.2, 0..5usize),
    ) -> Arrival {
        let class = [Class::Interactive, Class::Batch, Class::Router][class];
        Arrival { role, adapter, text, class, leaves }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The scripted model asserts that each sequence runs on its own prompt, in its own lane, without gaps.
    #[test]
    fn no_order_of_arrivals_starves_leaks_or_mixes(
        arrivals in prop::collection::vec(arrival(), 1..120),
        budget in prop_oneof![Just(0usize), Just(2000), Just(1 << 20)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let engine = open(budget).await;
            let one = |arrival: Arrival| {
                let engine = engine.clone();
                async move {
                    let role = ["a", "b", "c", "d", "e", "f"][arrival.role];
                    let adapter = arrival.adapter.map(|n| (format!("{n}.gguf").into(), 1.0));
                    let request = Request { adapter, class: arrival.class, ..ask(role, &arrival.text) };
                    let mut stream = match engine.generate(request).await {
                        Ok(stream) => stream,
                        Err(Error::Overflow { .. }) => return 0,
                        Err(error) => panic!("{error}"),
                    };
                    let Some(reads) = arrival.leaves else {
                        // What does not fit into max_tokens is cut.
                        let expected: String = format!("<{}>", arrival.text).chars().take(100).collect();
                        assert_eq!(read(stream).await.unwrap().0, expected);
                        return 1;
                    };
                    for _ in 0..reads {
                        if stream.recv().await.is_none() {
                            break;
                        }
                    }
                    1
                }
            };
            let begun: u64 = futures::future::join_all(arrivals.into_iter().map(one)).await.into_iter().sum();
            read(engine.generate(ask("a", "last")).await.unwrap()).await.unwrap();
            let stats = engine.stats();
            assert_eq!((stats.busy, stats.queued, stats.failed), (0, 0, 0), "{stats:?}");
            assert_eq!(stats.finished + stats.cancelled, begun + 1, "{stats:?}");
            assert!(stats.prefix_bytes <= budget as u64, "{stats:?}");
        });
    }
}

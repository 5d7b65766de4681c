//! What is more than one token after another: choices, forced tokens, drafts, outgrown contexts, making room.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use artel_engine::backend::Limits;
use artel_engine::scripted::{Gate, Scripted};
use artel_engine::{
    Chunk, Class, Drafts, Error, Finish, Handle, Message, Options, Overflow, Reason, Request, Sampling, Speaker, Stream,
};
use proptest::prelude::*;

const LIMITS: Limits = Limits { context: 256, sequences: 2, batch: 32, grain: 1, rewinds: true, shifts: true };

fn ask(text: &str) -> Request {
    Request {
        flow: Arc::from("role"),
        class: Class::Interactive,
        left: 0,
        messages: vec![Message { speaker: Speaker::User, text: text.to_owned() }],
        adapter: None,
        sampling: Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, repeat_penalty: 1.0, seed: None },
        max_tokens: 100,
        stop: Vec::new(),
        schema: None,
        overflow: Overflow::Reject,
    }
}

async fn engine(drafts: Drafts, model: Scripted) -> Handle {
    Handle::spawn("test", Options { drafts, ..Options::default() }, || Ok(model)).await.unwrap()
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

async fn answer(engine: &Handle, request: Request) -> Result<(String, Finish), Error> {
    read(engine.generate(request).await?).await
}

fn labels(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn a_choice_is_one_pass_over_the_prompt() {
    let engine = engine(Drafts::Never, Scripted::new(LIMITS, |_| "lora".to_owned())).await;
    let choice = engine.choose(ask("which?"), labels(&["gguf", "lora", "rag"])).await.unwrap();
    assert_eq!((choice.best(), engine.stats().steps), (1, 1));
    assert_eq!(choice.usage.computed, "which?\n".len() as u32);
    assert!((choice.scores.iter().map(|s| s.exp()).sum::<f64>() - 1.0).abs() < 1e-9, "{choice:?}");
    assert_eq!(engine.stats().busy, 0);
}

#[tokio::test]
async fn labels_that_part_late_cost_a_small_pass_each() {
    let engine = engine(Drafts::Never, Scripted::new(LIMITS, |_| "role-bc".to_owned())).await;
    let names = labels(&["role-a", "role-b", "role-bc", "role-bd"]);
    let choice = engine.choose(ask("which?"), names).await.unwrap();
    assert_eq!((choice.best(), engine.stats().steps), (2, 2), "{choice:?}");
    assert_eq!(choice.usage.computed, "which?\nrole-".len() as u32 + 1);
}

#[tokio::test]
async fn a_choice_without_labels_or_with_two_the_same_is_refused() {
    let engine = engine(Drafts::Never, Scripted::new(LIMITS, |_| String::new())).await;
    for names in [labels(&[]), labels(&["a", "b", "a"]), vec!["x".to_owned(); 5000]] {
        assert!(matches!(engine.choose(ask("which?"), names).await, Err(Error::Bad(_))));
    }
    assert_eq!(engine.choose(ask("which?"), labels(&["only"])).await.unwrap().scores, [0.0]);
}

#[tokio::test]
async fn what_the_schema_forces_is_not_sampled_one_by_one() {
    let reply = |_: &str| r#"|{"verdict":"|ship|","reason":"|none|"}|"#.to_owned();
    let engine = engine(Drafts::Never, Scripted::new(LIMITS, reply)).await;
    let request = Request { schema: Some(Arc::new(serde_json::json!({}))), ..ask("go") };
    let (text, finish) = answer(&engine, request).await.unwrap();
    assert_eq!((text.as_str(), finish.reason), (r#"{"verdict":"ship","reason":"none"}"#, Reason::End));
    assert_eq!((finish.usage.output, finish.usage.forced), (text.len() as u32, text.len() as u32 - 8));
    // The prompt with the head, and one batch for each sampled character but the last ones of both words, which bring what is
    // forced behind them along.
    assert_eq!(finish.usage.prompt, "go\n".len() as u32);
    assert_eq!(engine.stats().steps, 8, "{:?}", engine.stats());
}

#[tokio::test]
async fn drafts_make_fewer_batches_of_the_same_text() {
    let copy = |prompt: &str| prompt.trim().to_owned();
    let text = "the cat sat on the mat and the cat sat on the hat";
    let plain = engine(Drafts::Never, Scripted::new(LIMITS, copy)).await;
    let drafted = engine(Drafts::Always(8), Scripted::new(LIMITS, copy)).await;
    let one = answer(&plain, ask(text)).await.unwrap();
    let two = answer(&drafted, ask(text)).await.unwrap();
    assert_eq!((one.0.as_str(), two.0.as_str()), (text, text));
    assert_eq!((one.1.usage.drafted, one.1.usage.output), (0, two.1.usage.output));
    let usage = two.1.usage;
    assert!(usage.accepted > 30 && usage.drafted > usage.accepted, "{usage:?}");
    assert!(drafted.stats().steps < plain.stats().steps / 2);
    assert_eq!((drafted.stats().drafted, drafted.stats().accepted), (usage.drafted.into(), usage.accepted.into()));
}

#[tokio::test]
async fn a_model_that_cannot_rewind_is_never_drafted_for_and_still_chooses() {
    let limits = Limits { rewinds: false, ..LIMITS };
    let engine = engine(Drafts::Always(8), Scripted::new(limits, |prompt| prompt.trim().to_owned())).await;
    let (_, finish) = answer(&engine, ask("aaaaaaaaaaaaaaaaaaaaaaa")).await.unwrap();
    assert_eq!(finish.usage.drafted, 0);
    assert_eq!(engine.choose(ask("bx"), labels(&["ax", "bx", "by"])).await.unwrap().best(), 1);
}

#[tokio::test]
async fn an_output_may_outgrow_the_context() {
    let engine = engine(Drafts::Never, Scripted::new(LIMITS, |_| "0123456789".repeat(100))).await;
    let long = Request { max_tokens: 1000, ..ask("count") };
    assert!(matches!(answer(&engine, long.clone()).await, Err(Error::Overflow { .. })));
    let (text, finish) = answer(&engine, Request { overflow: Overflow::Shift, ..long.clone() }).await.unwrap();
    assert_eq!((text, finish.usage.output), ("0123456789".repeat(100), 1000));
    let prompt = "word ".repeat(100);
    let cut = Request { messages: ask(&prompt).messages, overflow: Overflow::Shift, ..long };
    let (_, finish) = answer(&engine, cut).await.unwrap();
    assert!((100..=192).contains(&finish.usage.prompt) && finish.usage.output == 1000, "{finish:?}");
}

#[tokio::test]
async fn who_is_more_urgent_takes_the_seat_of_who_is_less_and_both_are_answered() {
    let gate = Gate::default();
    let model = Scripted::new(LIMITS, |prompt| format!("{} answered", prompt.trim())).with_gate(&gate);
    let engine = engine(Drafts::Never, model).await;
    let batch = |n: u32| Request { class: Class::Batch, ..ask(&format!("batch {n}")) };
    let slow = [engine.generate(batch(1)).await.unwrap(), engine.generate(batch(2)).await.unwrap()];
    gate.pass(5);
    gate.reached();
    let quick = [engine.generate(ask("first")).await.unwrap(), engine.generate(ask("second")).await.unwrap()];
    let choice = tokio::spawn({
        let engine = engine.clone();
        async move { engine.choose(Request { class: Class::Router, ..ask("first") }, labels(&["first", "x"])).await }
    });
    // It is asked for when it has had its turn on this thread; the engine hears of it before the next batch but one.
    tokio::task::yield_now().await;
    while engine.stats().queued + engine.stats().busy < 5 {
        gate.pass(1);
        gate.reached();
        tokio::task::yield_now().await;
    }
    gate.open();
    assert_eq!(choice.await.unwrap().unwrap().best(), 0);
    for (text, stream) in ["first", "second", "batch 1", "batch 2"].iter().zip(quick.into_iter().chain(slow)) {
        assert_eq!(read(stream).await.unwrap().0, format!("{text} answered"));
    }
    assert_eq!(engine.stats().failed, 0);
}

#[tokio::test]
async fn adapters_are_unloaded_once_nobody_uses_them_and_loaded_again() {
    let gate = Gate::default();
    let model = Scripted::new(LIMITS, |prompt| prompt.trim().to_owned()).with_gate(&gate);
    let probe = model.probe();
    let engine = engine(Drafts::Never, model).await;
    let with = |name: &str| Request { adapter: Some((name.into(), 1.0)), ..ask("a text of some length") };
    let lanes = || {
        let mut lanes: Vec<u32> = probe.cells().keys().map(|(lane, _)| lane.0).collect();
        lanes.sort_unstable();
        lanes
    };
    let (a, b) = (engine.generate(with("a.gguf")).await.unwrap(), engine.generate(with("b.gguf")).await.unwrap());
    gate.pass(4);
    gate.reached();
    engine.keep_adapters([("b.gguf".into(), 1.0)]);
    gate.pass(2);
    gate.reached();
    assert_eq!(lanes(), [1, 2], "somebody still uses it");
    gate.open();
    read(a).await.unwrap();
    read(b).await.unwrap();
    answer(&engine, ask("more")).await.unwrap();
    assert_eq!(lanes(), [0, 2]);
    // Another adapter gets the lane, and nothing of what was there.
    let (_, finish) = answer(&engine, with("c.gguf")).await.unwrap();
    assert_eq!(finish.usage.computed, finish.usage.prompt);
    assert_eq!(answer(&engine, with("a.gguf")).await.unwrap().0, "a text of some length");
}

#[derive(Debug, Clone)]
struct Arrival {
    text: String,
    class: usize,
    chooses: bool,
    schema: bool,
    shifts: bool,
    adapter: Option<usize>,
    leaves: Option<usize>,
}

prop_compose! {
    fn arrival()(
        text in "[ab |]{1,300}",
        class in 0..3usize,
        chooses in prop::bool::weighted(0.2),
        schema: bool,
        shifts: bool,
        adapter in prop::option::weighted(0.3, 0..3usize),
        leaves in prop::option::weighted(0.2, 0..5usize),
    ) -> Arrival {
        Arrival { text, class, chooses, schema, shifts, adapter, leaves }
    }
}

/// What a copied text looks like once its marks are gone, where there is a schema.
fn copied(text: &str, schema: bool) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('|').filter(|_| schema) {
        out.push_str(before);
        let (forced, left) = after.split_once('|').unwrap_or((after, ""));
        out.push_str(forced);
        rest = left;
    }
    out + rest
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// The scripted model asserts that each token is sampled over exactly the prompt and the text so far.
    #[test]
    fn whatever_is_mixed_every_text_is_the_one_it_would_be_alone(arrivals in prop::collection::vec(arrival(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let copy = |prompt: &str| prompt.trim_end_matches('\n').to_owned();
            let engine = engine(Drafts::Always(8), Scripted::new(LIMITS, copy)).await;
            let one = |arrival: Arrival| {
                let engine = engine.clone();
                async move {
                    let class = [Class::Interactive, Class::Batch, Class::Router][arrival.class];
                    let adapter = arrival.adapter.map(|n| (format!("{n}.gguf").into(), 1.0));
                    let overflow = if arrival.shifts { Overflow::Shift } else { Overflow::Reject };
                    let schema = arrival.schema.then(|| Arc::new(serde_json::json!({})));
                    let request = Request { class, adapter, overflow, schema, ..ask(&arrival.text) };
                    if arrival.chooses {
                        let names = labels(&["a", "ab", "abb", "b", "ba", " "]);
                        match engine.choose(Request { overflow: Overflow::Truncate, ..request }, names).await {
                            Ok(choice) => assert!(choice.scores.iter().all(|s| s.is_finite())),
                            Err(error) => panic!("{error}"),
                        }
                        return;
                    }
                    let mut stream = match engine.generate(request).await {
                        Ok(stream) => stream,
                        Err(Error::Overflow { .. }) => return,
                        Err(error) => panic!("{error}"),
                    };
                    let Some(reads) = arrival.leaves else {
                        let (text, finish) = read(stream).await.unwrap();
                        let whole = copied(&arrival.text, arrival.schema);
                        if finish.usage.prompt as usize == arrival.text.len() + 1 {
                            assert_eq!(text, whole.chars().take(100).collect::<String>());
                        }
                        return;
                    };
                    for _ in 0..reads {
                        if stream.recv().await.is_none() {
                            break;
                        }
                    }
                }
            };
            futures::future::join_all(arrivals.into_iter().map(one)).await;
            answer(&engine, ask("last")).await.unwrap();
            let stats = engine.stats();
            assert_eq!((stats.busy, stats.queued, stats.failed), (0, 0, 0), "{stats:?}");
        });
    }
}

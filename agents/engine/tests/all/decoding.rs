//! Decoding beyond one token per batch: label scoring, forced tokens, drafts, context shift, preemption.

use std::sync::Arc;
use std::time::Duration;

use artel_engine::backend::EngineLimits;
use artel_engine::scripted::{BatchGate, ScriptedBackend};
use artel_engine::{
    ContextOverflow, DraftMode, EngineActivity, EngineHandle, Error, FinishReason, Options, Priority, Request,
};
use proptest::prelude::*;

use crate::requests::{answer, ask, read};

const LIMITS: EngineLimits = EngineLimits {
    context_tokens: 256,
    sequences: 2,
    batch_tokens: 32,
    prefill_multiple: 1,
    can_truncate_kv: true,
    can_shift: true,
};

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

async fn engine(draft_mode: DraftMode, model: ScriptedBackend) -> EngineHandle {
    EngineHandle::spawn("test", Options { draft_mode, ..Options::default() }, || Ok(model)).await.unwrap()
}

fn labels(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn scoring_labels_is_one_pass_over_the_prompt() {
    let engine = engine(DraftMode::Never, ScriptedBackend::new(LIMITS, |_| "lora".to_owned())).await;
    let result = engine.score_labels(ask("which?"), labels(&["gguf", "lora", "rag"])).await.unwrap();
    assert_eq!((result.best(), engine.stats().batches), (1, 1));
    assert_eq!(result.usage.computed, "which?\n".len() as u32);
    assert!((result.scores.iter().map(|s| s.exp()).sum::<f64>() - 1.0).abs() < 1e-9, "{result:?}");
    assert_eq!(engine.stats().running, 0);
}

#[tokio::test]
async fn labels_that_diverge_late_cost_a_small_pass_each() {
    let engine = engine(DraftMode::Never, ScriptedBackend::new(LIMITS, |_| "role-bc".to_owned())).await;
    let names = labels(&["role-a", "role-b", "role-bc", "role-bd"]);
    let result = engine.score_labels(ask("which?"), names).await.unwrap();
    assert_eq!((result.best(), engine.stats().batches), (2, 2), "{result:?}");
    assert_eq!(result.usage.computed, "which?\nrole-".len() as u32 + 1);
}

#[tokio::test]
async fn scoring_no_labels_or_two_equal_ones_is_refused() {
    let engine = engine(DraftMode::Never, ScriptedBackend::new(LIMITS, |_| String::new())).await;
    for names in [labels(&[]), labels(&["a", "b", "a"]), vec!["x".to_owned(); 5000]] {
        assert!(matches!(engine.score_labels(ask("which?"), names).await, Err(Error::InvalidRequest(_))));
    }
    assert_eq!(engine.score_labels(ask("which?"), labels(&["only"])).await.unwrap().scores, [0.0]);
}

#[tokio::test]
async fn forced_tokens_are_not_sampled_one_by_one() {
    let reply = |_: &str| r#"|{"verdict":"|ship|","reason":"|none|"}|"#.to_owned();
    let engine = engine(DraftMode::Never, ScriptedBackend::new(LIMITS, reply)).await;
    let request = Request { schema: Some(Arc::new(serde_json::json!({}))), ..ask("go") };
    let (text, finish) = answer(&engine, request).await.unwrap();
    assert_eq!((text.as_str(), finish.reason), (r#"{"verdict":"ship","reason":"none"}"#, FinishReason::Stop));
    assert_eq!((finish.usage.output, finish.usage.forced), (text.len() as u32, text.len() as u32 - 8));
    // The prompt with the forced start, and one batch for each sampled character but the last ones of both words, whose batch
    // includes the tokens that are forced behind them.
    assert_eq!(finish.usage.prompt, "go\n".len() as u32);
    assert_eq!(engine.stats().batches, 8, "{:?}", engine.stats());
}

#[tokio::test]
async fn drafts_give_the_same_text_in_fewer_batches() {
    let copy = |prompt: &str| prompt.trim().to_owned();
    let text = "the cat sat on the mat and the cat sat on the hat";
    let plain = engine(DraftMode::Never, ScriptedBackend::new(LIMITS, copy)).await;
    let drafted = engine(DraftMode::Always(8), ScriptedBackend::new(LIMITS, copy)).await;
    let one = answer(&plain, ask(text)).await.unwrap();
    let two = answer(&drafted, ask(text)).await.unwrap();
    assert_eq!((one.0.as_str(), two.0.as_str()), (text, text));
    assert_eq!((one.1.usage.drafted, one.1.usage.output), (0, two.1.usage.output));
    let usage = two.1.usage;
    assert!(usage.accepted > 30 && usage.drafted > usage.accepted, "{usage:?}");
    assert!(drafted.stats().batches < plain.stats().batches / 2);
    assert_eq!(
        (drafted.stats().drafted_tokens, drafted.stats().accepted_tokens),
        (usage.drafted.into(), usage.accepted.into())
    );
}

#[tokio::test]
async fn a_model_that_cannot_truncate_its_cache_gets_no_drafts_and_still_scores_labels() {
    let limits = EngineLimits { can_truncate_kv: false, ..LIMITS };
    let engine = engine(DraftMode::Always(8), ScriptedBackend::new(limits, |prompt| prompt.trim().to_owned())).await;
    let (_, finish) = answer(&engine, ask("aaaaaaaaaaaaaaaaaaaaaaa")).await.unwrap();
    assert_eq!(finish.usage.drafted, 0);
    assert_eq!(engine.score_labels(ask("bx"), labels(&["ax", "bx", "by"])).await.unwrap().best(), 1);
}

#[tokio::test]
async fn an_output_may_outgrow_the_context() {
    let engine = engine(DraftMode::Never, ScriptedBackend::new(LIMITS, |_| "0123456789".repeat(100))).await;
    let long = Request { max_tokens: 1000, ..ask("count") };
    assert!(matches!(answer(&engine, long.clone()).await, Err(Error::Overflow { .. })));
    let (text, finish) = answer(&engine, Request { overflow: ContextOverflow::Shift, ..long.clone() }).await.unwrap();
    assert_eq!((text, finish.usage.output), ("0123456789".repeat(100), 1000));
    let prompt = "word ".repeat(100);
    let cut = Request { messages: ask(&prompt).messages, overflow: ContextOverflow::Shift, ..long };
    let (_, finish) = answer(&engine, cut).await.unwrap();
    assert!((100..=192).contains(&finish.usage.prompt) && finish.usage.output == 1000, "{finish:?}");
}

#[tokio::test]
async fn a_higher_priority_preempts_a_lower_one_and_both_finish() {
    let gate = BatchGate::default();
    let model = ScriptedBackend::new(LIMITS, |prompt| format!("{} answered", prompt.trim())).with_gate(&gate);
    let engine = engine(DraftMode::Never, model).await;
    let batch = |n: u32| Request { priority: Priority::Batch, ..ask(&format!("batch {n}")) };
    let slow = [engine.generate(batch(1)).await.unwrap(), engine.generate(batch(2)).await.unwrap()];
    gate.pass(5);
    gate.wait_until_held();
    let quick = [engine.generate(ask("first")).await.unwrap(), engine.generate(ask("second")).await.unwrap()];
    let scoring = tokio::spawn({
        let engine = engine.clone();
        async move {
            engine.score_labels(Request { priority: Priority::Router, ..ask("first") }, labels(&["first", "x"])).await
        }
    });
    // The request is sent once its task has run on this thread; the engine receives it before the next batch but one.
    tokio::task::yield_now().await;
    while engine.stats().waiting + engine.stats().running < 5 {
        gate.pass(1);
        gate.wait_until_held();
        tokio::task::yield_now().await;
    }
    gate.open();
    assert_eq!(scoring.await.unwrap().unwrap().best(), 0);
    for (text, stream) in ["first", "second", "batch 1", "batch 2"].iter().zip(quick.into_iter().chain(slow)) {
        assert_eq!(read(stream).await.unwrap().0, format!("{text} answered"));
    }
    assert_eq!(engine.stats().failed, 0);
}

#[tokio::test]
async fn tokens_that_were_overwritten_in_vain_are_not_taken_for_resident() {
    let gate = BatchGate::default();
    let model = ScriptedBackend::new(EngineLimits { sequences: 1, ..LIMITS }, |prompt| prompt.trim().repeat(10));
    let engine = engine(DraftMode::Never, model.with_gate(&gate).with_restore_faults(|number| number == 1)).await;
    let slow = engine.generate(Request { priority: Priority::Batch, ..ask("slow") }).await.unwrap();
    gate.pass(3);
    gate.wait_until_held();
    let quick = engine.generate(ask("quick")).await.unwrap();
    gate.open();
    assert_eq!(read(quick).await.unwrap().0, "quick".repeat(10));
    assert!(
        matches!(read(slow).await, Err(Error::Model(_))),
        "its cells could not be restored over those of the other"
    );
    assert_eq!(answer(&engine, ask("quick")).await.unwrap().0, "quick".repeat(10));
}

#[tokio::test]
async fn a_sequence_that_pauses_where_it_outgrows_the_context_may_be_preempted() {
    // For one of these lengths, its reader's channel is full just then.
    for length in 110..150 {
        let limits = EngineLimits { sequences: 1, ..LIMITS };
        // A chunk has both tokens of such a character.
        let model = ScriptedBackend::new(limits, |_| "\u{e9}".repeat(200));
        let engine = engine(DraftMode::Never, model).await;
        let long = Request { overflow: ContextOverflow::Shift, priority: Priority::Batch, ..ask(&"a".repeat(length)) };
        let long = Request { max_tokens: 1000, ..long };
        let unread = engine.generate(long).await.unwrap();
        let is_idle = || engine.heartbeat().is_some_and(|heartbeat| heartbeat.activity == EngineActivity::Idle);
        while engine.stats().output_tokens == 0 || !is_idle() {
            tokio::task::yield_now().await;
        }
        // The engine looks for something to compute, and finds nothing.
        let beats = engine.heartbeat().unwrap().beats;
        engine.retain_adapters([]);
        while engine.heartbeat().unwrap().beats == beats || !is_idle() {
            tokio::task::yield_now().await;
        }
        assert_eq!(answer(&engine, ask("quick")).await.unwrap().0, "\u{e9}".repeat(50));
        assert_eq!(read(unread).await.unwrap().0, "\u{e9}".repeat(200));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_whose_reader_comes_back_during_a_step_is_not_computed_beyond_its_context() {
    // For one of these lengths, its reader's channel is full where it outgrows the context; beyond, it is shifted before.
    for length in 110..150 {
        let gate = BatchGate::default();
        let model = ScriptedBackend::new(LIMITS, |_| "\u{e9}".repeat(200)).with_shift_gate(&gate);
        let engine = engine(DraftMode::Never, model).await;
        let long = |prompt: usize| {
            let overflow = ContextOverflow::Shift;
            Request { overflow, priority: Priority::Batch, max_tokens: 400, ..ask(&"a".repeat(prompt)) }
        };
        let mut paused = engine.generate(long(length)).await.unwrap();
        let is_idle = || engine.heartbeat().is_some_and(|heartbeat| heartbeat.activity == EngineActivity::Idle);
        let paused_or_held = async {
            while !gate.is_held() && (engine.stats().output_tokens == 0 || !is_idle()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, paused_or_held).await.expect("the engine gets to its end");
        if gate.is_held() {
            gate.open();
            assert_eq!(read(paused).await.unwrap().0, "\u{e9}".repeat(200));
            assert!(length > 110, "a reader that reads nothing has its sequence paused");
            return;
        }
        let other = tokio::spawn(read(engine.generate(long(150)).await.unwrap()));
        gate.wait_until_held();
        // While the other sequence is shifted, this one's reader comes back.
        for _ in 0..20 {
            assert!(paused.recv().await.is_some());
        }
        gate.open();
        assert_eq!(other.await.unwrap().unwrap().0, "\u{e9}".repeat(200));
        read(paused).await.unwrap();
    }
}

#[tokio::test]
async fn adapters_are_unloaded_once_they_are_unused_and_loaded_again() {
    let gate = BatchGate::default();
    let model = ScriptedBackend::new(LIMITS, |prompt| prompt.trim().to_owned()).with_gate(&gate);
    let probe = model.probe();
    let engine = engine(DraftMode::Never, model).await;
    let with = |name: &str| Request { adapters: vec![(name.into(), 1.0)], ..ask("a text of some length") };
    let in_cells = || {
        let mut adapters: Vec<u32> = probe.cells().values().map(|cells| cells.adapters.0).collect();
        adapters.sort_unstable();
        adapters
    };
    let (a, b) = (engine.generate(with("a.gguf")).await.unwrap(), engine.generate(with("b.gguf")).await.unwrap());
    gate.pass(4);
    gate.wait_until_held();
    engine.retain_adapters([vec![("b.gguf".into(), 1.0)]]);
    gate.pass(2);
    gate.wait_until_held();
    assert_eq!(in_cells(), [1, 2], "a sequence still uses it");
    gate.open();
    read(a).await.unwrap();
    read(b).await.unwrap();
    answer(&engine, ask("more")).await.unwrap();
    assert_eq!(in_cells(), [0, 2]);
    // Another adapter gets its number, and none of its tokens.
    let (_, finish) = answer(&engine, with("c.gguf")).await.unwrap();
    assert_eq!(finish.usage.computed, finish.usage.prompt);
    assert_eq!(answer(&engine, with("a.gguf")).await.unwrap().0, "a text of some length");
}

#[derive(Debug, Clone)]
struct MixedArrival {
    text: String,
    priority: usize,
    scores: bool,
    schema: bool,
    shifts: bool,
    adapter: Option<usize>,
    /// Reads so many chunks and drops the stream.
    max_reads: Option<usize>,
}

prop_compose! {
    fn arrival()(
        text in "[ab |]{1,300}",
        priority in 0..3usize,
        scores in prop::bool::weighted(0.2),
        schema: bool,
        shifts: bool,
        adapter in prop::option::weighted(0.3, 0..3usize),
        max_reads in prop::option::weighted(0.2, 0..5usize),
    ) -> MixedArrival {
        MixedArrival { text, priority, scores, schema, shifts, adapter, max_reads }
    }
}

/// A copied text without its marks, where there is a schema.
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
    fn every_text_in_a_mixed_load_is_the_one_it_would_be_alone(arrivals in prop::collection::vec(arrival(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let copy = |prompt: &str| prompt.trim_end_matches('\n').to_owned();
            let engine = engine(DraftMode::Always(8), ScriptedBackend::new(LIMITS, copy)).await;
            let one = |arrival: MixedArrival| {
                let engine = engine.clone();
                async move {
                    let priority = [Priority::Interactive, Priority::Batch, Priority::Router][arrival.priority];
                    let adapters = arrival.adapter.map(|n| (format!("{n}.gguf").into(), 1.0)).into_iter().collect();
                    let overflow = if arrival.shifts { ContextOverflow::Shift } else { ContextOverflow::Reject };
                    let schema = arrival.schema.then(|| Arc::new(serde_json::json!({})));
                    let request = Request { priority, adapters, overflow, schema, ..ask(&arrival.text) };
                    if arrival.scores {
                        let names = labels(&["a", "ab", "abb", "b", "ba", " "]);
                        match engine.score_labels(Request { overflow: ContextOverflow::Truncate, ..request }, names).await {
                            Ok(result) => assert!(result.scores.iter().all(|s| s.is_finite())),
                            Err(error) => panic!("{error}"),
                        }
                        return;
                    }
                    let mut stream = match engine.generate(request).await {
                        Ok(stream) => stream,
                        Err(Error::Overflow { .. }) => return,
                        Err(error) => panic!("{error}"),
                    };
                    let Some(max_reads) = arrival.max_reads else {
                        let (text, finish) = read(stream).await.unwrap();
                        let expected = copied(&arrival.text, arrival.schema);
                        if finish.usage.prompt as usize == arrival.text.len() + 1 {
                            assert_eq!(text, expected.chars().take(100).collect::<String>());
                        }
                        return;
                    };
                    for _ in 0..max_reads {
                        if stream.recv().await.is_none() {
                            break;
                        }
                    }
                }
            };
            futures::future::join_all(arrivals.into_iter().map(one)).await;
            answer(&engine, ask("last")).await.unwrap();
            let stats = engine.stats();
            assert_eq!((stats.running, stats.waiting, stats.failed), (0, 0, 0), "{stats:?}");
        });
    }
}

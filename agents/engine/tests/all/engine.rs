//! The engine over a scripted model.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use artel_engine::backend::{DecodeError, EngineLimits};
use artel_engine::scripted::{BatchGate, ScriptedBackend};
use artel_engine::{Chunk, ContextOverflow, DraftMode, EngineHandle, Error, FinishReason, LoadError, Options, Request};

use crate::requests::{answer, ask, read};

pub(crate) const LIMITS: EngineLimits = EngineLimits {
    context_tokens: 256,
    sequences: 4,
    batch_tokens: 32,
    prefill_multiple: 1,
    can_truncate_kv: true,
    can_shift: true,
};

fn echo(prompt: &str) -> String {
    format!("you said {}", prompt.trim())
}

async fn engine(model: ScriptedBackend) -> EngineHandle {
    // Whether drafts pay is a question of times.
    let options = Options { max_waiting: 8, draft_mode: DraftMode::Never, ..Options::default() };
    EngineHandle::spawn("test", options, || Ok(model)).await.unwrap()
}

#[tokio::test]
async fn sequences_share_one_model_and_release_their_slots() {
    let gate = BatchGate::default();
    let model = ScriptedBackend::new(LIMITS, echo).with_gate(&gate);
    let probe = model.probe();
    let engine = engine(model).await;
    let texts: Vec<String> = (0..8).map(|n| format!("number {n}")).collect();
    let streams = futures::future::try_join_all(texts.iter().map(|text| engine.generate(ask(text)))).await.unwrap();
    // All requests arrive before the first batch is computed, so the number of batches does not depend on timing.
    gate.open();
    for (text, stream) in texts.iter().zip(streams) {
        let (reply, finish) = read(stream).await.unwrap();
        assert_eq!((reply, finish.reason), (echo(text), FinishReason::Stop));
        assert_eq!(finish.usage.prompt, text.len() as u32 + 1);
    }
    assert_eq!(probe.cells().len(), 4, "tokens stay resident in free slots");
    let stats = engine.stats();
    assert_eq!((stats.finished, stats.running, stats.waiting), (8, 0, 0));
    // Eight in turn would take 17 batches each; four share each batch here.
    assert!(stats.batches < 8 * 17 / 2, "{stats:?}");
}

#[tokio::test]
async fn a_dropped_stream_frees_its_cells_before_the_next_batch() {
    let gate = BatchGate::default();
    let model = ScriptedBackend::new(LIMITS, |_| "x".repeat(90)).with_gate(&gate);
    let probe = model.probe();
    let engine = engine(model).await;
    let dropped = engine.generate(ask("first")).await.unwrap();
    let kept = engine.generate(ask("second")).await.unwrap();
    gate.pass(5);
    gate.wait_until_held();
    drop(dropped);
    // One batch is running; the next one must not contain the dropped sequence.
    gate.pass(1);
    while engine.stats().cancelled == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(probe.cells().len(), 1);
    gate.open();
    assert_eq!(read(kept).await.unwrap().0.len(), 90);
}

#[tokio::test]
async fn a_slow_reader_holds_back_only_itself() {
    let engine =
        engine(ScriptedBackend::new(EngineLimits { context_tokens: 1024, ..LIMITS }, |_| "y".repeat(400))).await;
    let slow = engine.generate(Request { max_tokens: 500, ..ask("slow") }).await.unwrap();
    for _ in 0..3 {
        assert_eq!(answer(&engine, Request { max_tokens: 500, ..ask("quick") }).await.unwrap().0.len(), 400);
    }
    assert_eq!(engine.stats().running, 1);
    assert_eq!(read(slow).await.unwrap().0.len(), 400);
}

#[tokio::test]
async fn a_stop_text_ends_the_output_and_is_no_part_of_it() {
    let engine = engine(ScriptedBackend::new(LIMITS, |_| "one ENDing EN END two".to_owned())).await;
    let stop = |text: &str| Request { stop: vec![text.to_owned()], ..ask("go") };
    let (text, finish) = answer(&engine, stop(" END ")).await.unwrap();
    assert_eq!((text.as_str(), finish.reason), ("one ENDing EN", FinishReason::StopText));
    assert_eq!(answer(&engine, stop("never")).await.unwrap().0, "one ENDing EN END two");
    let (text, finish) = answer(&engine, Request { max_tokens: 5, ..ask("go") }).await.unwrap();
    assert_eq!((text.as_str(), finish.reason), ("one E", FinishReason::Length));
}

#[tokio::test]
async fn a_cut_output_has_no_half_of_a_character() {
    let engine = engine(ScriptedBackend::new(LIMITS, |_| "ab職人".to_owned())).await;
    for (max_tokens, expected) in [(2, "ab"), (3, "ab"), (4, "ab"), (5, "ab職"), (6, "ab職")] {
        let (text, finish) = answer(&engine, Request { max_tokens, ..ask("go") }).await.unwrap();
        assert_eq!((text.as_str(), finish.reason), (expected, FinishReason::Length), "{max_tokens} tokens");
    }
}

#[tokio::test]
async fn characters_of_several_tokens_come_whole() {
    let engine = engine(ScriptedBackend::new(LIMITS, |_| "артель – 職人 🛠 done".to_owned())).await;
    let mut stream = engine.generate(ask("go")).await.unwrap();
    let mut text = String::new();
    while let Some(chunk) = stream.recv().await {
        if let Chunk::Text { text: more, .. } = chunk {
            assert!(!more.contains('\u{FFFD}'), "{more:?}");
            text.push_str(&more);
        }
    }
    assert_eq!(text, "артель – 職人 🛠 done");
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_is_refused_or_cut_in_the_middle() {
    let engine = engine(ScriptedBackend::new(LIMITS, echo)).await;
    let long = format!("begin {} end", "word ".repeat(100));
    let refused = answer(&engine, ask(&long)).await;
    assert_eq!(refused.unwrap_err(), Error::Overflow { prompt: 511, output: 100, context: 256 });
    let cut = Request { overflow: ContextOverflow::Truncate, max_tokens: 80, ..ask(&long) };
    let (text, finish) = answer(&engine, cut).await.unwrap();
    assert!(text.starts_with("you said begin word") && finish.usage.prompt <= 176, "{text} {finish:?}");
}

#[tokio::test]
async fn a_full_queue_refuses_requests() {
    let gate = BatchGate::default();
    let engine = engine(ScriptedBackend::new(LIMITS, echo).with_gate(&gate)).await;
    let mut streams = Vec::new();
    for n in 0..13 {
        streams.push(engine.generate(ask(&n.to_string())).await.unwrap());
    }
    gate.open();
    let results = futures::future::join_all(streams.into_iter().map(read)).await;
    let refused = results.iter().filter(|r| matches!(r, Err(Error::QueueFull(8)))).count();
    // The four slots are filled before or after the queue is, depending on when the thread first checks.
    assert!((1..=5).contains(&refused), "{refused}");
    assert!(results.iter().all(|r| matches!(r, Ok(_) | Err(Error::QueueFull(8)))));
}

#[tokio::test]
async fn a_sequence_in_a_distant_slot_moves_beside_the_others_and_its_output_is_the_same() {
    let gate = BatchGate::default();
    let model = ScriptedBackend::new(LIMITS, |prompt| prompt.trim().repeat(20)).with_gate(&gate);
    let probe = model.probe();
    let engine = engine(model).await;
    let mut streams = Vec::new();
    for (name, tokens) in [("a", 60), ("b", 2), ("c", 60)] {
        streams.push(engine.generate(Request { max_tokens: tokens, ..ask(name) }).await.unwrap());
        // Its prompt is computed, in the next free slot.
        gate.pass(1);
        gate.wait_until_held();
    }
    gate.pass(8);
    gate.wait_until_held();
    let mut cells: Vec<(u32, usize)> = probe.cells().iter().map(|(slot, cells)| (slot.0, cells.count)).collect();
    cells.sort_unstable();
    assert_eq!(cells.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [1, 2, 3], "{cells:?}");
    assert_eq!(cells[0].1, "b\nb".len(), "the tokens of the second one stay resident");
    gate.open();
    let mut texts = Vec::new();
    for stream in streams {
        texts.push(read(stream).await.unwrap().0);
    }
    assert_eq!(texts, ["a".repeat(20), "b".repeat(2), "c".repeat(20)]);
}

#[tokio::test]
async fn a_sequence_whose_move_fails_goes_on_in_its_slot_or_fails_alone() {
    for failures in [1, 2] {
        let gate = BatchGate::default();
        let model = ScriptedBackend::new(LIMITS, |prompt| prompt.trim().repeat(20)).with_gate(&gate);
        let engine = engine(model.with_restore_faults(move |number| number <= failures)).await;
        let mut streams = Vec::new();
        for (name, tokens) in [("a", 60), ("b", 2), ("c", 60)] {
            streams.push(engine.generate(Request { max_tokens: tokens, ..ask(name) }).await.unwrap());
            gate.pass(1);
            gate.wait_until_held();
        }
        gate.open();
        let mut texts = Vec::new();
        for stream in streams {
            texts.push(read(stream).await.map(|(text, _)| text));
        }
        let first = texts.remove(0);
        assert!(if failures == 1 { first.unwrap() == "a".repeat(20) } else { matches!(first, Err(Error::Model(_))) });
        assert_eq!(texts.into_iter().map(Result::unwrap).collect::<Vec<_>>(), ["b".repeat(2), "c".repeat(20)]);
        assert_eq!(engine.stats().failed, failures - 1);
        assert_eq!(answer(&engine, ask("a")).await.unwrap().0, "a".repeat(20));
    }
}

#[tokio::test]
async fn only_the_sequence_at_fault_fails() {
    let faults = |_, batch: &[artel_engine::backend::BatchToken]| {
        let is_bad = batch.iter().any(|token| token.token.0 == '!' as i32);
        is_bad.then(|| DecodeError::Batch("it hurts".to_owned()))
    };
    let engine = engine(ScriptedBackend::new(LIMITS, echo).with_faults(faults)).await;
    let texts = ["a", "b!", "c"];
    let results = futures::future::join_all(texts.iter().map(|text| answer(&engine, ask(text)))).await;
    assert_eq!(results[0].as_ref().unwrap().0, "you said a");
    assert_eq!(results[1], Err(Error::Model("it hurts".to_owned())));
    assert_eq!(results[2].as_ref().unwrap().0, "you said c");
}

#[tokio::test]
async fn a_sequence_that_fails_between_two_decoding_ones_fails_alone() {
    let (gate, between) = (BatchGate::default(), Arc::new(AtomicBool::new(false)));
    let faults = {
        let between = between.clone();
        move |_, batch: &[artel_engine::backend::BatchToken]| {
            let is_bad = batch.iter().any(|token| token.token.0 == '!' as i32);
            between.fetch_or(is_bad && batch.len() == 3, Ordering::Relaxed);
            is_bad.then(|| DecodeError::Batch("it hurts".to_owned()))
        }
    };
    let model = ScriptedBackend::new(LIMITS, |prompt| prompt.trim().repeat(20)).with_gate(&gate).with_faults(faults);
    let engine = engine(model).await;
    let mut streams = Vec::new();
    // Each is in the slot beside the one before; the second has ended when the third is running, and the last one takes its slot.
    let last = format!("bbbb{}", "!".repeat(100));
    for (text, tokens, batches) in [("a", 60, 1), ("bbbb", 2, 4), ("c", 60, 3), (&last, 60, 0)] {
        streams.push(engine.generate(Request { max_tokens: tokens, ..ask(text) }).await.unwrap());
        gate.pass(batches);
        gate.wait_until_held();
    }
    gate.open();
    let results = futures::future::join_all(streams.into_iter().map(read)).await;
    let texts: Vec<_> = results.into_iter().map(|result| result.map(|(text, _)| text)).collect();
    let repeated = |text: &str, times| Ok(text.repeat(times));
    assert_eq!(
        texts,
        [repeated("a", 20), repeated("b", 2), repeated("c", 20), Err(Error::Model("it hurts".to_owned()))]
    );
    assert!(between.load(Ordering::Relaxed), "it failed beside decoding sequences");
}

#[tokio::test]
async fn an_engine_that_fails_tells_every_caller_the_reason() {
    let fatal_fault = |step, _: &[_]| (step == 3).then(|| DecodeError::Fatal("out of memory".to_owned()));
    let fatal = engine(ScriptedBackend::new(LIMITS, echo).with_faults(fatal_fault)).await;
    assert_eq!(answer(&fatal, ask("hello")).await.unwrap_err(), Error::Ended("out of memory".to_owned()));
    fatal.ended().await;
    assert!(matches!(answer(&fatal, ask("again")).await, Err(Error::Ended(_))));
    let panics = engine(ScriptedBackend::new(LIMITS, echo).with_faults(|_, _| panic!("a bug"))).await;
    let error = answer(&panics, ask("hello")).await.unwrap_err();
    assert!(matches!(&error, Error::Ended(reason) if reason.contains("a bug")), "{error}");
}

#[tokio::test]
async fn a_model_that_does_not_load_gives_the_reason() {
    let missing = || LoadError::permanent("no such file").with_advice("fetch it");
    let load = move || Err::<ScriptedBackend, _>(missing());
    assert_eq!(EngineHandle::spawn("test", Options::default(), load).await.unwrap_err(), missing());
    let load = || -> Result<ScriptedBackend, LoadError> { panic!("a bug") };
    let error = EngineHandle::spawn("test", Options::default(), load).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[tokio::test]
async fn sequences_with_different_adapters_run_side_by_side() {
    let gate = BatchGate::default();
    let model = ScriptedBackend::new(LIMITS, echo).with_gate(&gate);
    let probe = model.probe();
    let engine = engine(model).await;
    let with = |name: &str| Request { adapters: vec![(name.into(), 1.0)], ..ask("a long enough text") };
    let missing = answer(&engine, with("missing.gguf")).await;
    assert!(matches!(missing, Err(Error::InvalidRequest(reason)) if reason.contains("missing.gguf")));
    let (a, b) = (engine.generate(with("a.gguf")).await.unwrap(), engine.generate(with("b.gguf")).await.unwrap());
    gate.pass(4);
    gate.wait_until_held();
    let mut cells: Vec<(u32, u32)> = probe.cells().iter().map(|(slot, cells)| (slot.0, cells.adapters.0)).collect();
    cells.sort_unstable();
    assert_eq!(cells, [(0, 1), (3, 2)], "with room for more of each");
    gate.open();
    assert_eq!(read(a).await.unwrap().0, read(b).await.unwrap().0);
}

#[tokio::test]
async fn hundreds_of_sequences_a_fifth_of_them_dropped_leak_nothing() {
    let model = ScriptedBackend::new(LIMITS, echo);
    let probe = model.probe();
    let engine = EngineHandle::spawn("test", Options::default(), || Ok(model)).await.unwrap();
    let tasks = (0..500).map(|n: u32| {
        let engine = engine.clone();
        async move {
            let mut stream = engine.generate(ask(&format!("text {n}"))).await.unwrap();
            if n.is_multiple_of(5) {
                for _ in 0..n % 7 {
                    stream.recv().await;
                }
                return;
            }
            assert_eq!(read(stream).await.unwrap().0, echo(&format!("text {n}")));
        }
    });
    futures::future::join_all(tasks).await;
    // Dropped sequences are released before this one is computed.
    answer(&engine, ask("last")).await.unwrap();
    let stats = engine.stats();
    assert_eq!((stats.finished + stats.cancelled, stats.failed), (501, 0), "{stats:?}");
    assert!(stats.finished >= 401 && stats.cancelled > 0, "{stats:?}");
    assert!(probe.cells().len() <= LIMITS.sequences as usize && stats.running == 0, "{:?}", probe.cells());
}

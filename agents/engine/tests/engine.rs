//! The engine over a scripted model.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use artel_engine::backend::{Fault, Limits};
use artel_engine::scripted::{Gate, Scripted};
use artel_engine::{
    Chunk, Class, Error, Finish, Handle, Message, Options, Overflow, Reason, Request, Sampling, Speaker, Stream,
};

const LIMITS: Limits = Limits { context: 256, sequences: 4, batch: 32, grain: 1, rewinds: true, shifts: true };

fn echo(prompt: &str) -> String {
    format!("you said {}", prompt.trim())
}

async fn engine(model: Scripted) -> Handle {
    Handle::spawn("test", Options { queue: 8, ..Options::default() }, || Ok(model)).await.unwrap()
}

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

async fn read(mut stream: Stream) -> Result<(String, Finish), Error> {
    let mut text = String::new();
    loop {
        match stream.recv().await.expect("a stream has an end") {
            Chunk::Prefill { .. } => {}
            Chunk::Text { text: more, .. } => text.push_str(&more),
            Chunk::Scores(_) => panic!("nobody asked for a choice"),
            Chunk::Finished(finish) => {
                assert_eq!(stream.recv().await, None);
                return Ok((text, finish));
            }
            Chunk::Failed(error) => return Err(error),
        }
    }
}

async fn answer(engine: &Handle, request: Request) -> Result<(String, Finish), Error> {
    read(engine.generate(request).await?).await
}

#[tokio::test]
async fn several_share_one_model_and_leave_nothing_behind() {
    let gate = Gate::default();
    let model = Scripted::new(LIMITS, echo).with_gate(&gate);
    let probe = model.probe();
    let engine = engine(model).await;
    let texts: Vec<String> = (0..8).map(|n| format!("number {n}")).collect();
    let asked = futures::future::try_join_all(texts.iter().map(|text| engine.generate(ask(text)))).await.unwrap();
    // All have asked before the first batch is computed, so how many batches there are depends on no timing.
    gate.open();
    for (text, stream) in texts.iter().zip(asked) {
        let (reply, finish) = read(stream).await.unwrap();
        assert_eq!((reply, finish.reason), (echo(text), Reason::End));
        assert_eq!(finish.usage.prompt, text.len() as u32 + 1);
    }
    assert_eq!(probe.cells().len(), 4, "what was said stays in the cells of free slots");
    let stats = engine.stats();
    assert_eq!((stats.finished, stats.busy, stats.queued), (8, 0, 0));
    // Eight one by one would take 17 batches each; four share each batch here.
    assert!(stats.steps < 8 * 17 / 2, "{stats:?}");
}

#[tokio::test]
async fn a_dropped_stream_frees_its_cells_before_the_next_batch() {
    let gate = Gate::default();
    let model = Scripted::new(LIMITS, |_| "x".repeat(90)).with_gate(&gate);
    let probe = model.probe();
    let engine = engine(model).await;
    let dropped = engine.generate(ask("first")).await.unwrap();
    let kept = engine.generate(ask("second")).await.unwrap();
    gate.pass(5);
    gate.reached();
    drop(dropped);
    // One batch is under way; the one after it must not have the dropped sequence in it any more.
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
    let engine = engine(Scripted::new(Limits { context: 1024, ..LIMITS }, |_| "y".repeat(400))).await;
    let slow = engine.generate(Request { max_tokens: 500, ..ask("slow") }).await.unwrap();
    for _ in 0..3 {
        assert_eq!(answer(&engine, Request { max_tokens: 500, ..ask("quick") }).await.unwrap().0.len(), 400);
    }
    assert_eq!(engine.stats().busy, 1);
    assert_eq!(read(slow).await.unwrap().0.len(), 400);
}

#[tokio::test]
async fn a_stop_text_ends_the_output_and_is_no_part_of_it() {
    let engine = engine(Scripted::new(LIMITS, |_| "one ENDing EN END two".to_owned())).await;
    let stop = |text: &str| Request { stop: vec![text.to_owned()], ..ask("go") };
    let (text, finish) = answer(&engine, stop(" END ")).await.unwrap();
    assert_eq!((text.as_str(), finish.reason), ("one ENDing EN", Reason::Stop));
    assert_eq!(answer(&engine, stop("never")).await.unwrap().0, "one ENDing EN END two");
    let (text, finish) = answer(&engine, Request { max_tokens: 5, ..ask("go") }).await.unwrap();
    assert_eq!((text.as_str(), finish.reason), ("one E", Reason::Length));
}

#[tokio::test]
async fn characters_of_several_tokens_come_whole() {
    let engine = engine(Scripted::new(LIMITS, |_| "артель – 職人 🛠 done".to_owned())).await;
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
    let engine = engine(Scripted::new(LIMITS, echo)).await;
    let long = format!("begin {} end", "word ".repeat(100));
    let refused = answer(&engine, ask(&long)).await;
    assert_eq!(refused.unwrap_err(), Error::Overflow { prompt: 511, output: 100, context: 256 });
    let cut = Request { overflow: Overflow::Truncate, max_tokens: 80, ..ask(&long) };
    let (text, finish) = answer(&engine, cut).await.unwrap();
    assert!(text.starts_with("you said begin word") && finish.usage.prompt <= 176, "{text} {finish:?}");
}

#[tokio::test]
async fn a_full_queue_says_so() {
    let gate = Gate::default();
    let engine = engine(Scripted::new(LIMITS, echo).with_gate(&gate)).await;
    let mut streams = Vec::new();
    for n in 0..13 {
        streams.push(engine.generate(ask(&n.to_string())).await.unwrap());
    }
    gate.open();
    let results = futures::future::join_all(streams.into_iter().map(read)).await;
    let busy = results.iter().filter(|r| matches!(r, Err(Error::Busy(8)))).count();
    // The four slots are filled before or after the queue is, depending on when the thread first looks.
    assert!((1..=5).contains(&busy), "{busy}");
    assert!(results.iter().all(|r| matches!(r, Ok(_) | Err(Error::Busy(8)))));
}

#[tokio::test]
async fn who_is_left_apart_moves_beside_the_others_and_says_the_same() {
    let gate = Gate::default();
    let model = Scripted::new(LIMITS, |prompt| prompt.trim().repeat(20)).with_gate(&gate);
    let probe = model.probe();
    let engine = engine(model).await;
    let mut streams = Vec::new();
    for (name, tokens) in [("a", 60), ("b", 2), ("c", 60)] {
        streams.push(engine.generate(Request { max_tokens: tokens, ..ask(name) }).await.unwrap());
        // It has read its prompt, in the next free slot.
        gate.pass(1);
        gate.reached();
    }
    gate.pass(8);
    gate.reached();
    let mut slots: Vec<u32> = probe.cells().keys().map(|(_, slot)| slot.0).collect();
    slots.sort_unstable();
    assert_eq!(slots, [0, 1], "{:?}", probe.cells());
    gate.open();
    let mut texts = Vec::new();
    for stream in streams {
        texts.push(read(stream).await.unwrap().0);
    }
    assert_eq!(texts, ["a".repeat(20), "b".repeat(2), "c".repeat(20)]);
}

#[tokio::test]
async fn only_the_guilty_sequence_fails() {
    let guilty = |_, batch: &[artel_engine::backend::Entry]| {
        let bad = batch.iter().any(|entry| entry.token.0 == '!' as i32);
        bad.then(|| Fault::Batch("it hurts".to_owned()))
    };
    let engine = engine(Scripted::new(LIMITS, echo).with_accident(guilty)).await;
    let texts = ["a", "b!", "c"];
    let results = futures::future::join_all(texts.iter().map(|text| answer(&engine, ask(text)))).await;
    assert_eq!(results[0].as_ref().unwrap().0, "you said a");
    assert_eq!(results[1], Err(Error::Model("it hurts".to_owned())));
    assert_eq!(results[2].as_ref().unwrap().0, "you said c");
}

#[tokio::test]
async fn whoever_fails_between_two_who_write_fails_alone() {
    let (gate, between) = (Gate::default(), Arc::new(AtomicBool::new(false)));
    let guilty = {
        let between = between.clone();
        move |_, batch: &[artel_engine::backend::Entry]| {
            let bad = batch.iter().any(|entry| entry.token.0 == '!' as i32);
            between.fetch_or(bad && batch.len() == 3, Ordering::Relaxed);
            bad.then(|| Fault::Batch("it hurts".to_owned()))
        }
    };
    let model = Scripted::new(LIMITS, |prompt| prompt.trim().repeat(20)).with_gate(&gate).with_accident(guilty);
    let engine = engine(model).await;
    let mut streams = Vec::new();
    // Each sits beside the one before; the second is over when the third has come, and the last one takes its place.
    let last = format!("bbbb{}", "!".repeat(100));
    for (text, tokens, batches) in [("a", 60, 1), ("bbbb", 2, 4), ("c", 60, 3), (&last, 60, 0)] {
        streams.push(engine.generate(Request { max_tokens: tokens, ..ask(text) }).await.unwrap());
        gate.pass(batches);
        gate.reached();
    }
    gate.open();
    let results = futures::future::join_all(streams.into_iter().map(read)).await;
    let texts: Vec<_> = results.into_iter().map(|result| result.map(|(text, _)| text)).collect();
    let said = |text: &str, times| Ok(text.repeat(times));
    assert_eq!(texts, [said("a", 20), said("b", 2), said("c", 20), Err(Error::Model("it hurts".to_owned()))]);
    assert!(between.load(Ordering::Relaxed), "it failed beside those who wrote");
}

#[tokio::test]
async fn an_engine_that_dies_says_why_to_everybody() {
    let dies = |step, _: &[_]| (step == 3).then(|| Fault::Fatal("out of memory".to_owned()));
    let fatal = engine(Scripted::new(LIMITS, echo).with_accident(dies)).await;
    assert_eq!(answer(&fatal, ask("hello")).await.unwrap_err(), Error::Gone("out of memory".to_owned()));
    fatal.ended().await;
    assert!(matches!(answer(&fatal, ask("again")).await, Err(Error::Gone(_))));
    let panics = engine(Scripted::new(LIMITS, echo).with_accident(|_, _| panic!("a bug"))).await;
    let error = answer(&panics, ask("hello")).await.unwrap_err();
    assert!(matches!(&error, Error::Gone(reason) if reason.contains("a bug")), "{error}");
}

#[tokio::test]
async fn a_model_that_does_not_load_says_why() {
    let load = || Err::<Scripted, _>("no such file".to_owned());
    let error = Handle::spawn("test", Options::default(), load).await.unwrap_err();
    assert_eq!(error, Error::Gone("no such file".to_owned()));
}

#[tokio::test]
async fn adapters_have_lanes_of_their_own() {
    let gate = Gate::default();
    let model = Scripted::new(LIMITS, echo).with_gate(&gate);
    let probe = model.probe();
    let engine = engine(model).await;
    let with = |name: &str| Request { adapter: Some((name.into(), 1.0)), ..ask("a long enough text") };
    let missing = answer(&engine, with("missing.gguf")).await;
    assert!(matches!(missing, Err(Error::Bad(reason)) if reason.contains("missing.gguf")));
    let (a, b) = (engine.generate(with("a.gguf")).await.unwrap(), engine.generate(with("b.gguf")).await.unwrap());
    gate.pass(4);
    gate.reached();
    let mut lanes: Vec<u32> = probe.cells().keys().map(|(lane, slot)| lane.0 * 10 + slot.0).collect();
    lanes.sort_unstable();
    assert_eq!(lanes, [10, 20]);
    gate.open();
    assert_eq!(read(a).await.unwrap().0, read(b).await.unwrap().0);
}

#[tokio::test]
async fn hundreds_of_sequences_a_fifth_of_them_dropped_leak_nothing() {
    let model = Scripted::new(LIMITS, echo);
    let probe = model.probe();
    let engine = Handle::spawn("test", Options::default(), || Ok(model)).await.unwrap();
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
    // Whoever was dropped is swept out before this one is computed.
    answer(&engine, ask("last")).await.unwrap();
    let stats = engine.stats();
    assert_eq!((stats.finished + stats.cancelled, stats.failed), (501, 0), "{stats:?}");
    assert!(stats.finished >= 401 && stats.cancelled > 0, "{stats:?}");
    assert!(probe.cells().len() <= LIMITS.sequences as usize && stats.busy == 0, "{:?}", probe.cells());
}

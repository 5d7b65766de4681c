//! Both sides in one process, over a real pair of sockets, with a scripted engine.

use artel_engine::backend::EngineLimits;
use artel_engine::scripted::ScriptedBackend;
use artel_engine::{Chunk, Priority, Error, Message, Options, ContextOverflow, Request, SamplingParams, ChatRole, SharedCpu};
use async_trait::async_trait;

use super::*;
use crate::{Loading, Serving, serve};

struct Script(EngineLimits);

#[async_trait]
impl Loading for Script {
    async fn load(
        &self,
        spec: &str,
        turn: Option<SharedCpu>,
        progress: Arc<dyn Fn(f32) + Send + Sync>,
    ) -> Result<(Handle, Vec<Memory>), String> {
        if spec == "broken" {
            return Err("the file is broken".to_owned());
        }
        progress(0.5);
        let (limits, options) = (self.0, Options { shared_cpu: turn, ..Options::default() });
        let load = move || Ok(ScriptedBackend::new(limits, |prompt| prompt.lines().last().unwrap_or_default().to_owned()));
        let handle = Handle::spawn("script", options, load).await.map_err(|e| e.to_string())?;
        Ok((handle, vec![Memory { device: "CPU".to_owned(), weights: 3, cache: 2, compute: 1 }]))
    }
}

fn limits() -> EngineLimits {
    EngineLimits { context_tokens: 256, sequences: 2, batch_tokens: 64, prefill_multiple: 1, can_truncate_kv: true, can_shift: true }
}

/// A process as far as this one can be one: a runtime of its own, which can be killed.
struct Process {
    kill: CancellationToken,
    served: tokio::sync::oneshot::Receiver<Option<Serving>>,
}

/// An engine, and its process.
async fn engine(spec: &str, counter: Option<&Counter>) -> (Result<Started, String>, Process) {
    let (ours, theirs) = Socket::pair().unwrap();
    let ((end, ended), kill) = (watch::channel(None), CancellationToken::new());
    let (say, served) = tokio::sync::oneshot::channel();
    let killed = kill.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let serving = runtime.block_on(killed.run_until_cancelled(serve(theirs, Script(limits()))));
        runtime.shutdown_background();
        let serving = serving.map(Result::unwrap);
        let how = if serving.is_some() { "it was closed" } else { "its process was killed" };
        end.send_replace(Some(how.to_owned()));
        // Not every test asks.
        let _ = say.send(serving);
    });
    let life = Life { process: 7, ended, closing: CancellationToken::new().drop_guard() };
    (attach(life, ours, spec.to_owned(), counter, |_| {}).await, Process { kill, served })
}

fn request(text: &str) -> Request {
    let sampling = SamplingParams { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, repeat_penalty: 1.0, seed: None };
    Request {
        flow: "sailor".into(),
        priority: Priority::Interactive,
        remaining_steps: 0,
        messages: vec![Message { role: ChatRole::User, text: text.to_owned() }],
        adapter: None,
        sampling,
        max_tokens: 64,
        stop: Vec::new(),
        schema: None,
        overflow: ContextOverflow::Reject,
    }
}

async fn answer(handle: &Handle, text: &str) -> Result<String, Error> {
    let (mut stream, mut said) = (handle.generate(request(text)).await?, String::new());
    loop {
        match stream.recv().await {
            Some(Chunk::Text { text, .. }) => said.push_str(&text),
            Some(Chunk::Finished(_)) | None => return Ok(said),
            Some(Chunk::Failed(error)) => return Err(error),
            Some(_) => {}
        }
    }
}

#[tokio::test]
async fn an_engine_behind_a_socket_answers_like_any_other() {
    let (started, process) = engine("sound", Some(&Counter::default())).await;
    let Started { handle, memory } = started.unwrap();
    assert_eq!((handle.limits(), handle.process_id()), (limits(), Some(7)));
    assert_eq!(memory, [Memory { device: "CPU".to_owned(), weights: 3, cache: 2, compute: 1 }]);
    let answers = futures::future::join_all((0..5).map(|n| {
        let handle = handle.clone();
        async move { answer(&handle, &format!("number {n}")).await }
    }));
    let expected: Vec<_> = (0..5).map(|n| Ok(format!("number {n}"))).collect();
    assert_eq!(answers.await, expected);
    assert_eq!(handle.stats().running + handle.stats().waiting, 0, "all calls are answered");
    let long = answer(&handle, &"x".repeat(1000)).await;
    assert!(matches!(long, Err(Error::Overflow { context: 256, .. })), "{long:?}");
    let _expected = handle.pin_prefixes(vec!["sailor".into()]);
    handle.prefill(request("")).await.unwrap();
    handle.close().await;
    assert_eq!(process.served.await.unwrap(), Some(Serving::Closed));
}

#[tokio::test]
async fn whoever_drops_an_engine_ends_its_process() {
    let (started, process) = engine("sound", Some(&Counter::default())).await;
    drop(started.unwrap());
    assert_eq!(process.served.await.unwrap(), Some(Serving::Abandoned { freed: true }));
}

#[tokio::test]
async fn a_stream_keeps_its_engine() {
    // Nobody else computes on its cores: it takes no turns.
    let (started, process) = engine("sound", None).await;
    let handle = started.unwrap().handle;
    let mut stream = handle.generate(request("to the end")).await.unwrap();
    drop(handle);
    let mut said = String::new();
    while let Some(chunk) = stream.recv().await {
        if let Chunk::Text { text, .. } = chunk {
            said.push_str(&text);
        }
    }
    assert_eq!(said, "to the end");
    drop(stream);
    assert_eq!(process.served.await.unwrap(), Some(Serving::Abandoned { freed: true }));
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_says_why() {
    let (started, _process) = engine("broken", Some(&Counter::default())).await;
    assert_eq!(started.unwrap_err(), "the file is broken");
}

#[tokio::test]
async fn whoever_streams_when_the_process_dies_hears_how() {
    let (started, process) = engine("sound", Some(&Counter::default())).await;
    let handle = started.unwrap().handle;
    assert_eq!(answer(&handle, "hello").await.unwrap(), "hello");
    process.kill.cancel();
    process.served.await.unwrap();
    assert_eq!(answer(&handle, "hello").await, Err(Error::Ended("its process was killed".to_owned())));
}

#[tokio::test]
async fn two_engines_take_turns() {
    let counter = Counter::default();
    let (one, _first) = engine("sound", Some(&counter)).await;
    let (two, _second) = engine("sound", Some(&counter)).await;
    let (one, two) = (one.unwrap().handle, two.unwrap().handle);
    for n in 0..20 {
        let text = format!("number {n}");
        let both = tokio::join!(answer(&one, &text), answer(&two, &text));
        assert_eq!(both, (Ok(text.clone()), Ok(text)));
    }
}

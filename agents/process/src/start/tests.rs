//! Both sides in one process, over a real socket pair, with a scripted engine.

use artel_engine::backend::EngineLimits;
use artel_engine::scripted::ScriptedBackend;
use artel_engine::{
    ChatRole, Chunk, ContextOverflow, Error, Message, Options, Priority, Request, RequestOrigin, SamplingParams,
    SharedCpu,
};
use async_trait::async_trait;

use super::*;
use crate::{EngineLoader, ServeOutcome, serve};

struct ScriptedEngineLoader(EngineLimits);

#[async_trait]
impl EngineLoader for ScriptedEngineLoader {
    async fn load(
        &self,
        spec: &str,
        shared_cpu: Option<SharedCpu>,
        progress: Arc<dyn Fn(f32) + Send + Sync>,
    ) -> Result<(EngineHandle, Vec<DeviceMemory>), LoadError> {
        match spec {
            "broken" => return Err(broken()),
            "busy" => return Err(LoadError::transient("the disk is full")),
            _ => {}
        }
        progress(0.5);
        let (limits, options) = (self.0, Options { shared_cpu, ..Options::default() });
        let load =
            move || Ok(ScriptedBackend::new(limits, |prompt| prompt.lines().last().unwrap_or_default().to_owned()));
        let handle = EngineHandle::spawn("script", options, load).await?;
        Ok((handle, vec![DeviceMemory { device: "CPU".to_owned(), weights: 3, kv_cache: 2, compute: 1 }]))
    }
}

fn broken() -> LoadError {
    LoadError::permanent("tiny.gguf: no such file").with_advice("fetch it")
}

fn limits() -> EngineLimits {
    EngineLimits {
        context_tokens: 256,
        sequences: 2,
        batch_tokens: 64,
        prefill_multiple: 1,
        can_truncate_kv: true,
        can_shift: true,
    }
}

/// A stand-in for a process: a thread with its own runtime, which can be killed.
struct EngineThread {
    kill: CancellationToken,
    served: tokio::sync::oneshot::Receiver<Option<ServeOutcome>>,
}

/// An engine and its process.
async fn engine(spec: &str, broker: Option<&CpuLeaseBroker>) -> (Result<StartedEngine, LoadError>, EngineThread) {
    let (ours, theirs) = Socket::pair().unwrap();
    let ((end, ended), kill) = (watch::channel(None), CancellationToken::new());
    let (sender, served) = tokio::sync::oneshot::channel();
    let killed = kill.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(killed.run_until_cancelled(serve(theirs, ScriptedEngineLoader(limits()))));
        runtime.shutdown_background();
        let outcome = outcome.map(Result::unwrap);
        let reason = if outcome.is_some() { "it was closed" } else { "its process was killed" };
        end.send_replace(Some(reason.to_owned()));
        // Not every test receives it.
        let _ = sender.send(outcome);
    });
    let process = EngineProcess { id: 7, ended, closing: CancellationToken::new().drop_guard() };
    (attach(process, ours, spec.to_owned(), broker, |_| {}).await, EngineThread { kill, served })
}

fn request(text: &str) -> Request {
    let sampling =
        SamplingParams { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, repeat_penalty: 1.0, seed: None };
    Request {
        origin: RequestOrigin { task: Some("t".into()), step: Some("s".into()), role: None },
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

async fn answer(handle: &EngineHandle, text: &str) -> Result<String, Error> {
    let (mut stream, mut output) = (handle.generate(request(text)).await?, String::new());
    loop {
        match stream.recv().await {
            Some(Chunk::Text { text, .. }) => output.push_str(&text),
            Some(Chunk::Finished(_)) | None => return Ok(output),
            Some(Chunk::Failed(error)) => return Err(error),
            Some(_) => {}
        }
    }
}

#[tokio::test]
async fn an_engine_behind_a_socket_answers_like_any_other() {
    let (started, process) = engine("valid", Some(&CpuLeaseBroker::default())).await;
    let StartedEngine { handle, memory } = started.unwrap();
    assert_eq!((handle.limits(), handle.process_id()), (limits(), Some(7)));
    assert_eq!(memory, [DeviceMemory { device: "CPU".to_owned(), weights: 3, kv_cache: 2, compute: 1 }]);
    let answers = futures::future::join_all((0..5).map(|n| {
        let handle = handle.clone();
        async move { answer(&handle, &format!("number {n}")).await }
    }));
    let expected: Vec<_> = (0..5).map(|n| Ok(format!("number {n}"))).collect();
    assert_eq!(answers.await, expected);
    assert_eq!(handle.stats().running + handle.stats().waiting, 0, "all calls have ended");
    let long = answer(&handle, &"x".repeat(1000)).await;
    assert!(matches!(long, Err(Error::Overflow { context: 256, .. })), "{long:?}");
    let _expected = handle.pin_prefixes(vec!["sailor".into()]);
    handle.prefill(request("")).await.unwrap();
    handle.close().await;
    assert_eq!(process.served.await.unwrap(), Some(ServeOutcome::Closed));
}

#[tokio::test]
async fn dropping_an_engine_ends_its_process() {
    let (started, process) = engine("valid", Some(&CpuLeaseBroker::default())).await;
    drop(started.unwrap());
    assert_eq!(process.served.await.unwrap(), Some(ServeOutcome::Disconnected { is_freed: true }));
}

#[tokio::test]
async fn a_stream_keeps_its_engine_alive() {
    // Without a broker, because it does not share its cores.
    let (started, process) = engine("valid", None).await;
    let handle = started.unwrap().handle;
    let mut stream = handle.generate(request("to the end")).await.unwrap();
    drop(handle);
    let mut output = String::new();
    while let Some(chunk) = stream.recv().await {
        if let Chunk::Text { text, .. } = chunk {
            output.push_str(&text);
        }
    }
    assert_eq!(output, "to the end");
    drop(stream);
    assert_eq!(process.served.await.unwrap(), Some(ServeOutcome::Disconnected { is_freed: true }));
}

#[tokio::test]
async fn a_failed_load_gives_the_reason_and_whether_it_may_pass() {
    let (started, _process) = engine("broken", Some(&CpuLeaseBroker::default())).await;
    assert_eq!(started.unwrap_err(), broken());
    let (started, _process) = engine("busy", Some(&CpuLeaseBroker::default())).await;
    assert_eq!(started.unwrap_err(), LoadError::transient("the disk is full"));
}

#[test]
fn a_request_crosses_with_its_origin() {
    let sent = request("hello");
    assert_eq!(wire::request_of(wire::request(sent.clone())).unwrap().origin, sent.origin);
}

#[tokio::test]
async fn a_call_after_the_process_was_killed_gives_the_exit_reason() {
    let (started, process) = engine("valid", Some(&CpuLeaseBroker::default())).await;
    let handle = started.unwrap().handle;
    assert_eq!(answer(&handle, "hello").await.unwrap(), "hello");
    process.kill.cancel();
    process.served.await.unwrap();
    assert_eq!(answer(&handle, "hello").await, Err(Error::Ended("its process was killed".to_owned())));
}

#[tokio::test]
async fn two_engines_share_the_cpu_lease() {
    let broker = CpuLeaseBroker::default();
    let (one, _first) = engine("valid", Some(&broker)).await;
    let (two, _second) = engine("valid", Some(&broker)).await;
    let (one, two) = (one.unwrap().handle, two.unwrap().handle);
    for n in 0..20 {
        let text = format!("number {n}");
        let both = tokio::join!(answer(&one, &text), answer(&two, &text));
        assert_eq!(both, (Ok(text.clone()), Ok(text)));
    }
}

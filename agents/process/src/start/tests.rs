//! Both sides in one process, over a real socket pair, with a scripted engine.

use std::time::Duration;

use artel_engine::backend::EngineLimits;
use artel_engine::scripted::{BatchGate, ScriptedBackend};
use artel_engine::{
    ChatRole, Chunk, ContextOverflow, Error, Message, Options, Priority, Request, RequestOrigin, SamplingParams,
    SharedCpu,
};
use async_trait::async_trait;

use super::*;
use crate::{EngineLoader, ServeOutcome, serve};

/// The kernel knows no such process, so that its answers are all that is known of it.
const NO_PROCESS_ID: u32 = u32::MAX;

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
            "stuck" => std::future::pending().await,
            _ => {}
        }
        progress(0.5);
        let (limits, options) = (self.0, Options { shared_cpu, ..Options::default() });
        let gate = BatchGate::default();
        match spec {
            // The prompt is computed, and then the thread hangs.
            "hanging" => gate.pass(2),
            _ => gate.open(),
        }
        let load = move || {
            let reply = |prompt: &str| prompt.lines().last().unwrap_or_default().to_owned();
            Ok(ScriptedBackend::new(limits, reply).with_gate(&gate))
        };
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
    let (killed, hung) = (kill.clone(), Arc::new(SetOnce::new()));
    let (kill_hung, reported) = (kill.clone(), hung.clone());
    tokio::spawn(async move {
        reported.wait().await;
        kill_hung.cancel();
    });
    let hang_reason = hung.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(killed.run_until_cancelled(serve(theirs, ScriptedEngineLoader(limits()))));
        runtime.shutdown_background();
        let outcome = outcome.map(Result::unwrap);
        let killed = || hang_reason.get().cloned().unwrap_or_else(|| "its process was killed".to_owned());
        end.send_replace(Some(if outcome.is_some() { "it was closed".to_owned() } else { killed() }));
        // Not every test receives it.
        let _ = sender.send(outcome);
    });
    let closing = CancellationToken::new().drop_guard();
    let process = EngineProcess { id: NO_PROCESS_ID, ended, closing, hung, log_levels: None };
    let timeout = match spec {
        "stuck" => Duration::from_millis(20),
        "hanging" => Duration::from_millis(500),
        _ => crate::DEFAULT_HANG_TIMEOUT,
    };
    let policy = HangPolicy { timeout, is_cpu_only: true, rpc_servers: Vec::new() };
    (attach(process, ours, spec.to_owned(), policy, broker, |_| {}).await, EngineThread { kill, served })
}

fn request(text: &str) -> Request {
    Request {
        origin: RequestOrigin { task: Some("t".into()), step: Some("s".into()), role: None },
        flow: "sailor".into(),
        priority: Priority::Interactive,
        remaining_steps: 0,
        messages: vec![Message::new(ChatRole::User, text)],
        adapters: Vec::new(),
        sampling: SamplingParams::GREEDY,
        logprobs: None,
        shares_prompt: false,
        max_tokens: 64,
        stop: Vec::new(),
        schema: None,
        tools: None,
        overflow: ContextOverflow::Reject,
        has_fixed_prefix: true,
        template_kwargs: Arc::default(),
        reasoning: artel_engine::ReasoningParams::default(),
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
    assert_eq!((handle.limits(), handle.process_id()), (limits(), Some(NO_PROCESS_ID)));
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

#[tokio::test]
async fn a_thread_that_hangs_ends_its_process_and_the_calls_with_the_reason() {
    let (started, process) = engine("hanging", Some(&CpuLeaseBroker::default())).await;
    let handle = started.unwrap().handle;
    let Err(Error::Ended(reason)) = answer(&handle, "hello").await else { panic!("its thread hangs") };
    assert!(reason.starts_with("hung: no progress for "), "{reason}");
    assert_eq!(process.served.await.unwrap(), None, "it was killed");
    let later = answer(&handle, "hello").await;
    assert_eq!(later, Err(Error::Ended(reason)));
}

#[tokio::test]
async fn a_load_without_progress_ends_too() {
    let (started, process) = engine("stuck", None).await;
    let error = started.unwrap_err();
    assert!(error.is_transient() && error.to_string().starts_with("hung: no progress for "), "{error}");
    assert_eq!(process.served.await.unwrap(), None, "it was killed");
}

#[test]
fn a_heartbeat_crosses_unchanged() {
    use artel_engine::{EngineActivity, Heartbeat};
    let expected = Some(Duration::from_millis(3));
    for activity in [
        EngineActivity::Idle,
        EngineActivity::AwaitsCpu,
        EngineActivity::Computes { expected },
        EngineActivity::Computes { expected: None },
    ] {
        let heartbeat = Heartbeat { beats: 7, activity };
        assert_eq!(wire::heartbeat_of(wire::heartbeat(heartbeat)), heartbeat);
    }
}

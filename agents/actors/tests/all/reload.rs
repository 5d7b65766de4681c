//! A reload that changes the limits of a role while its steps run and wait.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use artel_actors::{LoadProgress, Loader, Options, Runtime};
use artel_engine::backend::{Embeddings, EngineLimits};
use artel_engine::{
    Chunk, Engine, EngineHandle, EngineStats, Error, FinishReason, FinishSummary, LabelScores, LoadError, OutputStream,
    PrefixPin, Request, RequestTimings, RequestUsage,
};
use artel_journal::Journal;
use artel_placement::Placement;
use artel_roles::{Catalog, Model};
use artel_task::{EventKind, TaskId};
use async_trait::async_trait;
use tempfile::tempdir;
use tokio::sync::{oneshot, watch};

use super::fixtures::{all_events, end, graph, parse, submission, wait_for_events};

/// Far longer than any of it takes.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A graph of two steps of one role, which runs so many at once.
fn worker(concurrency: u32) -> Catalog {
    parse(&format!(
        "model: talk\nfile: talk.gguf\n---\nrole: worker\ndescription: D.\nmodel: talk\nprompt: P.\n\
         limits: {{concurrency: {concurrency}, queue: 64}}\n---\n\
         graph: twice\ndescription: D.\nstart: one\nnodes:\n  \
         one: {{role: worker, message: '{{{{ task.input }}}}1', next: two}}\n  \
         two: {{role: worker, message: '{{{{ task.input }}}}2', next: done}}\n"
    ))
}

/// An engine whose answers the test gives, one by one.
#[derive(Clone)]
struct HeldEngine(Arc<HeldState>);

struct HeldState {
    /// The message of each request that runs, and what ends it.
    running: Mutex<BTreeMap<String, oneshot::Sender<()>>>,
    /// The message of each request so far, and how many ran with it.
    started: watch::Sender<Vec<(String, usize)>>,
    end: watch::Sender<Option<String>>,
}

impl HeldEngine {
    fn new() -> Self {
        let (running, started, end) = (Mutex::default(), watch::Sender::default(), watch::Sender::default());
        Self(Arc::new(HeldState { running, started, end }))
    }

    /// Waits until so many requests have started in all; returns their messages and how many ran with each.
    async fn started(&self, count: usize) -> Vec<(String, usize)> {
        let mut started = self.0.started.subscribe();
        let reached = tokio::time::timeout(START_TIMEOUT, started.wait_for(|started| started.len() >= count)).await;
        reached.expect("enough requests start").unwrap().clone()
    }

    /// Answers a request that runs.
    fn answer(&self, message: &str) {
        let running = self.0.running.lock().unwrap().remove(message);
        // The engine ends the request when it is told so or when this is dropped.
        drop(running.unwrap_or_else(|| panic!("{message} does not run")));
    }
}

#[async_trait]
impl Engine for HeldEngine {
    fn limits(&self) -> EngineLimits {
        EngineLimits {
            context_tokens: 4096,
            sequences: 64,
            batch_tokens: 256,
            prefill_multiple: 1,
            can_truncate_kv: true,
            can_shift: true,
        }
    }

    fn stats(&self) -> EngineStats {
        EngineStats::default()
    }

    fn end_reason(&self) -> watch::Receiver<Option<String>> {
        self.0.end.subscribe()
    }

    async fn generate(&self, request: Request) -> Result<OutputStream, Error> {
        let message = request.messages.last().unwrap().text.clone();
        let (answer, answered) = oneshot::channel();
        let mut running = self.0.running.lock().unwrap();
        running.insert(message.clone(), answer);
        self.0.started.send_modify(|started| started.push((message, running.len())));
        Ok(OutputStream::remote(futures::stream::once(async move {
            // An error, since the sender is dropped: that is the answer.
            drop(answered.await);
            let (usage, timings) = (RequestUsage::default(), RequestTimings::default());
            Chunk::Finished(FinishSummary { reason: FinishReason::Stop, usage, timings })
        })))
    }

    async fn score_labels(&self, _: Request, _: Vec<String>) -> Result<LabelScores, Error> {
        Err(Error::Model("it only generates".to_owned()))
    }

    async fn prefill(&self, _: Request) -> Result<(), Error> {
        Ok(())
    }

    async fn embed(&self, _: Vec<String>) -> Result<Embeddings, Error> {
        Err(Error::Model("it only generates".to_owned()))
    }

    fn pin_prefixes(&self, _: Vec<Arc<str>>) -> PrefixPin {
        PrefixPin::new(|| ())
    }

    fn retain_adapters(&self, _: Vec<(PathBuf, f32)>) {}

    async fn forget_text(&self) -> Result<(), Error> {
        Ok(())
    }

    fn close(&self) {
        self.0.end.send_replace(Some("it was closed".to_owned()));
    }
}

#[async_trait]
impl Loader for HeldEngine {
    async fn load(&self, _: &Model, _: &Placement, _: LoadProgress) -> Result<EngineHandle, LoadError> {
        Ok(EngineHandle::new(self.clone()))
    }
}

async fn start(dir: &Path, engine: &HeldEngine, catalog: Catalog) -> Runtime {
    let journal = Journal::open(dir, artel_journal::Options::default()).await.unwrap();
    Runtime::start(Options::default(), catalog, journal, Arc::new(engine.clone())).await.unwrap()
}

async fn submit(runtime: &Runtime, input: &str) -> TaskId {
    runtime.submit(submission(graph("twice"), input)).await.unwrap()
}

/// Replaces the catalog; when this returns, all actors know it.
async fn reload(runtime: &Runtime, catalog: Catalog) {
    runtime.replace_catalog(catalog, None).await.unwrap();
    // The supervisor answers after it has replaced the catalog.
    runtime.engines().await.unwrap();
}

fn is_finished(kind: &EventKind) -> bool {
    matches!(kind, EventKind::StepFinished { .. })
}

fn messages(started: &[(String, usize)]) -> Vec<&str> {
    started.iter().map(|(message, _)| message.as_str()).collect()
}

#[tokio::test]
async fn a_raised_concurrency_starts_the_steps_that_wait() {
    let (dir, engine) = (tempdir().unwrap(), HeldEngine::new());
    let runtime = start(dir.path(), &engine, worker(1)).await;
    let mut tasks = Vec::new();
    for input in ["a", "b", "c"] {
        tasks.push(submit(&runtime, input).await);
    }
    let first = engine.started(1).await;
    assert_eq!((first.len(), first[0].1), (1, 1));
    reload(&runtime, worker(3)).await;
    let started = engine.started(3).await;
    assert_eq!(started[2].1, 3, "all run, though nothing has ended: {started:?}");
    let mut all = messages(&started);
    all.sort_unstable();
    assert_eq!(all, ["a1", "b1", "c1"]);
    // The steps of the old catalog that follow do not lower it again.
    for message in ["a1", "b1", "c1"] {
        engine.answer(message);
    }
    let started = engine.started(6).await;
    assert_eq!(started[5].1, 3, "{started:?}");
    for message in ["a2", "b2", "c2"] {
        engine.answer(message);
    }
    for task in tasks {
        assert_eq!(end(&all_events(&runtime, task).await).0, "completed");
    }
}

#[tokio::test]
async fn a_lowered_concurrency_lets_running_steps_end_and_starts_no_more_than_it_allows() {
    let (dir, engine) = (tempdir().unwrap(), HeldEngine::new());
    let runtime = start(dir.path(), &engine, worker(3)).await;
    let mut tasks = BTreeMap::new();
    for input in ["a", "b", "c", "d", "e"] {
        tasks.insert(input, submit(&runtime, input).await);
    }
    let before = engine.started(3).await;
    assert_eq!(before[2].1, 3);
    reload(&runtime, worker(1)).await;
    // A task of the new catalog, beside those of the old one, whose next steps are still to come.
    tasks.insert("f", submit(&runtime, "f").await);
    for message in messages(&before) {
        engine.answer(message);
        wait_for_events(&runtime, tasks[&message[..1]], 1, is_finished).await;
    }
    for count in 4..=12 {
        let started = engine.started(count).await;
        let (message, running) = &started[count - 1];
        assert_eq!((started.len(), *running), (count, 1), "{message} runs alone: {started:?}");
        engine.answer(message);
    }
    for task in tasks.into_values() {
        assert_eq!(end(&all_events(&runtime, task).await).0, "completed");
    }
}

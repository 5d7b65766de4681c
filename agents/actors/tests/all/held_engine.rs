//! An engine whose answers a test gives.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use artel_actors::{LoadProgress, Loader, Options, Runtime};
use artel_engine::backend::EngineLimits;
use artel_engine::{
    AnswerTokens, Chunk, Engine, EngineHandle, EngineStats, Error, FinishReason, FinishSummary, LabelScores, LoadError,
    OutputStream, PooledTexts, PoolingRequest, PrefixPin, Request, RequestTimings, RequestUsage, ScaledAdapters,
};
use artel_journal::Journal;
use artel_placement::Placement;
use artel_roles::{Catalog, Model};
use async_trait::async_trait;
use tokio::sync::{oneshot, watch};

/// Far longer than any of it takes.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// An engine whose answers the test gives, one by one.
#[derive(Clone)]
pub(super) struct HeldEngine(Arc<HeldState>);

struct HeldState {
    /// The message of each request that runs, and what ends it.
    running: Mutex<BTreeMap<String, oneshot::Sender<()>>>,
    /// The message of each request so far, and how many ran with it.
    started: watch::Sender<Vec<(String, usize)>>,
    end: watch::Sender<Option<String>>,
    /// How often it was told to forget the texts of callers.
    forgets: AtomicU32,
}

impl HeldEngine {
    pub(super) fn new() -> Self {
        let (running, started, end) = (Mutex::default(), watch::Sender::default(), watch::Sender::default());
        Self(Arc::new(HeldState { running, started, end, forgets: AtomicU32::new(0) }))
    }

    /// How often it was told to forget the texts of callers.
    pub(super) fn forgets(&self) -> u32 {
        self.0.forgets.load(Ordering::SeqCst)
    }

    /// Waits until so many requests have started in all; returns their messages and how many ran with each.
    pub(super) async fn started(&self, count: usize) -> Vec<(String, usize)> {
        let mut started = self.0.started.subscribe();
        let reached = tokio::time::timeout(START_TIMEOUT, started.wait_for(|started| started.len() >= count)).await;
        reached.expect("enough requests start").unwrap().clone()
    }

    /// Ends, as an engine without handles does.
    pub(super) fn end(&self) {
        self.close();
    }

    /// Answers a request that runs.
    pub(super) fn answer(&self, message: &str) {
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

    async fn tokenize_answer(&self, _: Request, _: String) -> Result<AnswerTokens, Error> {
        Err(Error::Model("it only generates".to_owned()))
    }

    async fn prefill(&self, _: Request) -> Result<(), Error> {
        Ok(())
    }

    async fn pool(&self, _: PoolingRequest) -> Result<PooledTexts, Error> {
        Err(Error::Model("it only generates".to_owned()))
    }

    fn pin_prefixes(&self, _: Vec<Arc<str>>) -> PrefixPin {
        PrefixPin::new(|| ())
    }

    fn retain_adapters(&self, _: Vec<ScaledAdapters>) {}

    async fn forget_text(&self) -> Result<(), Error> {
        self.0.forgets.fetch_add(1, Ordering::SeqCst);
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

pub(super) async fn start(dir: &Path, engine: &HeldEngine, catalog: Catalog) -> Runtime {
    let journal = Journal::open(dir, artel_journal::Options::default()).await.unwrap();
    Runtime::start(Options::default(), catalog, journal, Arc::new(engine.clone())).await.unwrap()
}

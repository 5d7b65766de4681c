//! The handle that callers hold of an engine.

use std::sync::{Arc, Weak};

use tokio::sync::watch;

use crate::answer_tokens::AnswerTokens;
use crate::backend::{Backend, EngineLimits};
use crate::counters::EngineStats;
use crate::engine::Engine;
use crate::heartbeat::Heartbeat;
use crate::load_error::LoadError;
use crate::local::LocalEngine;
use crate::options::Options;
use crate::pooling::{PooledTexts, PoolingRequest};
use crate::request::{Error, LabelScores, Request, SamplingOptions, ScaledAdapters};
use crate::stream::{OutputStream, PrefixPin, wait_for_end};

/// A handle of an engine. Clones refer to the same engine; it ends when the last one is dropped.
#[derive(Clone)]
pub struct EngineHandle(Arc<dyn Engine>);

impl EngineHandle {
    /// A handle of an engine that runs elsewhere.
    pub fn new(engine: impl Engine) -> Self {
        Self(Arc::new(engine))
    }

    /// Starts the thread of an engine and loads its model there. Fails with the error of loading.
    pub async fn spawn<B: Backend>(
        name: &str,
        options: Options,
        load: impl FnOnce() -> Result<B, LoadError> + Send + 'static,
    ) -> Result<Self, LoadError> {
        LocalEngine::spawn(name, options, load).await.map(Self::new)
    }

    /// The limits of the loaded model.
    pub fn limits(&self) -> EngineLimits {
        self.0.limits()
    }

    /// What the model's file states of its sampling.
    pub fn sampling_defaults(&self) -> SamplingOptions {
        self.0.sampling_defaults()
    }

    /// The latest statistics that are known without a call to the engine.
    pub fn stats(&self) -> EngineStats {
        self.0.stats()
    }

    /// The current statistics; an engine in another process is called for them.
    pub async fn fetch_stats(&self) -> EngineStats {
        self.0.fetch_stats().await
    }

    /// What its computing thread does; `None` for an engine in another process.
    pub fn heartbeat(&self) -> Option<Heartbeat> {
        self.0.heartbeat()
    }

    /// The id of its process, if it has one of its own.
    pub fn process_id(&self) -> Option<u32> {
        self.0.process_id()
    }

    /// Resolves when the engine has ended, with the reason.
    pub async fn ended(&self) -> String {
        self.watch_end().await
    }

    /// As [`Self::ended`], without keeping the engine alive by waiting for its end.
    pub fn watch_end(&self) -> impl Future<Output = String> + Send + use<> {
        let mut end = self.0.end_reason();
        async move { wait_for_end(&mut end).await }
    }

    /// Why it has ended, if it has.
    pub fn end_reason(&self) -> Option<String> {
        self.0.end_reason().borrow().clone()
    }

    /// Whether it was ended because it hung.
    pub fn has_hung(&self) -> bool {
        self.0.has_hung()
    }

    /// Starts a generation. Dropping the stream cancels it.
    pub async fn generate(&self, request: Request) -> Result<OutputStream, Error> {
        self.0.generate(request).await
    }

    /// Scores labels, at least one and no two the same, by the probability that the model would answer with each, without
    /// generating. Takes one pass over the prompt if all labels begin differently, and a small one more for each point where
    /// labels with a common prefix diverge. Output and sampling parameters of the request are ignored. Dropping the future
    /// cancels it.
    pub async fn score_labels(&self, request: Request, labels: Vec<String>) -> Result<LabelScores, Error> {
        self.0.score_labels(request, labels).await
    }

    /// The tokens of a request's prompt and of an answer to it, as the model would read and give them: what it learns that answer by.
    /// The model computes nothing. Refused if they do not fit into the context, or if a text spells a control token: other programs
    /// read that as the token.
    pub async fn tokenize_answer(&self, request: Request, answer: String) -> Result<AnswerTokens, Error> {
        self.0.tokenize_answer(request, answer).await
    }

    /// Unloads all adapters once no sequence uses them, but for these, each the ones that apply together. A request for others
    /// loads them again.
    pub fn retain_adapters(&self, sets: impl IntoIterator<Item = ScaledAdapters>) {
        self.0.retain_adapters(sets.into_iter().collect());
    }

    /// Prefills the prefix of a conversation, which is all before the text of its last message, and caches it for requests
    /// with the same prefix. Returns when that is done; at once if the prefix is cached already or too short.
    /// A request of priority [`Prefetch`](crate::Priority::Prefetch) prefills everything that stays the same however the text of
    /// its last message continues, and leaves it in a slot for a request that comes soon.
    /// Dropping the future cancels it.
    pub async fn prefill(&self, request: Request) -> Result<(), Error> {
        self.0.prefill(request).await
    }

    /// Pins the prefixes of these flows, which will be needed soon, until the result is dropped: they are evicted last.
    pub fn pin_prefixes(&self, flows: Vec<Arc<str>>) -> PrefixPin {
        self.0.pin_prefixes(flows)
    }

    /// Computes texts as a whole: embeds them, or scores documents by their relevance to a query. Texts of several requests share a
    /// batch. Dropping the future cancels what is not computed yet.
    pub async fn pool(&self, request: PoolingRequest) -> Result<PooledTexts, Error> {
        self.0.pool(request).await
    }

    /// Forgets the texts of callers: drops the prefixes that may hold one, in memory and on disk, and what is resident in the cells of
    /// free slots. Running sequences go on. Returns when the files are gone, and none of what ran before is written any more.
    pub async fn forget_text(&self) -> Result<(), Error> {
        self.0.forget_text().await
    }

    /// A reference that does not keep the engine alive.
    pub fn downgrade(&self) -> WeakEngineHandle {
        WeakEngineHandle { engine: Arc::downgrade(&self.0), end: self.0.end_reason() }
    }

    /// Ends the engine: running sequences fail, and the model is freed when this returns.
    pub async fn close(&self) {
        self.0.close();
        self.ended().await;
    }
}

impl std::fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineHandle").field("limits", &self.limits()).finish_non_exhaustive()
    }
}

/// Refers to an engine without keeping it alive. It may be ending, or have ended.
#[derive(Debug, Clone)]
pub struct WeakEngineHandle {
    engine: Weak<dyn Engine>,
    end: watch::Receiver<Option<String>>,
}

impl WeakEngineHandle {
    /// As [`EngineHandle::forget_text`]; if the engine is ending, returns when it has ended, and forgotten everything with that.
    ///
    /// # Errors
    /// Its files cannot be deleted.
    pub async fn forget_text(&self) -> Result<(), Error> {
        if let Some(engine) = self.engine.upgrade().map(EngineHandle) {
            match engine.forget_text().await {
                Err(Error::Ended(_)) => {}
                forgotten => return forgotten,
            }
        }
        wait_for_end(&mut self.end.clone()).await;
        Ok(())
    }
}

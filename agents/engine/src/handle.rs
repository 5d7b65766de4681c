//! What others hold of an engine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::backend::{Backend, Embedded, Limits};
use crate::draft::Drafts;
use crate::local::Local;
use crate::request::{Choice, Error, Request};
use crate::shelf;
use crate::stream::{Expectation, Stream};
use crate::turn::Turn;

/// How an engine behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sequences that may wait for a slot.
    pub queue: usize,
    /// The gap between tokens to aim at while prompts are computed beside running streams.
    pub gap: Duration,
    /// Set for an engine that computes on the same cores as others do.
    pub turn: Option<Turn>,
    /// Bytes of host memory for beginnings of prompts; 0 keeps none.
    pub prefixes: usize,
    /// Where these are kept on disk too, for the next start.
    pub shelf: Option<shelf::Options>,
    /// When tokens are computed because they are likely to come next.
    pub drafts: Drafts,
}

impl Default for Options {
    /// A queue far above what a person starts by hand; a gap at which text still seems to flow; a gibibyte, which is some
    /// seventy prompts of a small model or seven of a large one.
    fn default() -> Self {
        let gap = Duration::from_millis(150);
        Self { queue: 1024, gap, turn: None, prefixes: 1 << 30, shelf: None, drafts: Drafts::default() }
    }
}

/// What an engine has done so far and does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Sequences in slots.
    pub busy: u64,
    /// Sequences that wait for a slot.
    pub queued: u64,
    /// Batches computed.
    pub steps: u64,
    /// Prompt tokens computed.
    pub prompt: u64,
    /// Prompt tokens that were found instead of computed.
    pub shared: u64,
    /// Bytes of host memory that kept beginnings of prompts take.
    pub prefix_bytes: u64,
    /// Tokens generated.
    pub output: u64,
    /// Tokens computed because they were likely to come next.
    pub drafted: u64,
    /// Of these, the ones that came.
    pub accepted: u64,
    /// Sequences that ended well.
    pub finished: u64,
    /// Sequences whose reader went away.
    pub cancelled: u64,
    /// Sequences that failed.
    pub failed: u64,
}

/// An engine, wherever it runs: on a thread of this process, or in a process of its own.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// What the model holds.
    fn limits(&self) -> Limits;
    /// What it has done and does, as far as is known without asking.
    fn stats(&self) -> Stats;
    /// What it has done and does, asked now.
    async fn ask_stats(&self) -> Stats {
        self.stats()
    }
    /// The id of its process, if it has one of its own.
    fn process(&self) -> Option<u32> {
        None
    }
    /// Why it has ended, once it has. Nobody keeps the engine alive by watching this.
    fn end(&self) -> watch::Receiver<Option<String>>;
    /// See [`Handle::generate`].
    async fn generate(&self, request: Request) -> Result<Stream, Error>;
    /// See [`Handle::choose`].
    async fn choose(&self, request: Request, labels: Vec<String>) -> Result<Choice, Error>;
    /// See [`Handle::prime`].
    async fn prime(&self, request: Request) -> Result<(), Error>;
    /// See [`Handle::embed`].
    async fn embed(&self, texts: Vec<String>) -> Result<Embedded, Error>;
    /// See [`Handle::expect`].
    fn expect(&self, flows: Vec<Arc<str>>) -> Expectation;
    /// See [`Handle::keep_adapters`].
    fn keep_adapters(&self, adapters: Vec<(PathBuf, f32)>);
    /// Asks it to end.
    fn close(&self);
}

/// An engine. Clones are the same engine; it ends when the last one is dropped.
#[derive(Clone)]
pub struct Handle(Arc<dyn Engine>);

impl Handle {
    /// An engine that runs elsewhere.
    pub fn new(engine: impl Engine) -> Self {
        Self(Arc::new(engine))
    }

    /// Starts the thread of an engine and loads its model there. Fails with what loading says.
    pub async fn spawn<B: Backend>(
        name: &str,
        options: Options,
        load: impl FnOnce() -> Result<B, String> + Send + 'static,
    ) -> Result<Self, Error> {
        Local::spawn(name, options, load).await.map(Self::new)
    }

    /// What the model holds.
    pub fn limits(&self) -> Limits {
        self.0.limits()
    }

    /// What it has done and does, as far as is known without asking.
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// What it has done and does; an engine that runs elsewhere is asked.
    pub async fn ask_stats(&self) -> Stats {
        self.0.ask_stats().await
    }

    /// The id of its process, if it has one of its own.
    pub fn process(&self) -> Option<u32> {
        self.0.process()
    }

    /// Resolves when the engine has ended, with the reason.
    pub async fn ended(&self) -> String {
        self.watcher().await
    }

    /// As [`Self::ended`], without keeping the engine alive by waiting for its end.
    pub fn watcher(&self) -> impl Future<Output = String> + Send + use<> {
        let mut end = self.0.end();
        async move { reason(&mut end).await }
    }

    /// Starts a generation. Dropping the stream ends it.
    pub async fn generate(&self, request: Request) -> Result<Stream, Error> {
        self.0.generate(request).await
    }

    /// Says which of these labels, at least one and no two the same, the model would answer, without generating: in one pass
    /// over the prompt if they all begin differently, and a small one more for each place where some part later. What the
    /// request says of output and sampling does not matter. Dropping the future gives it up.
    pub async fn choose(&self, request: Request, labels: Vec<String>) -> Result<Choice, Error> {
        self.0.choose(request, labels).await
    }

    /// Unloads all adapters but these once nobody uses them any more. An adapter is loaded again when it is asked for.
    pub fn keep_adapters(&self, adapters: impl IntoIterator<Item = (PathBuf, f32)>) {
        self.0.keep_adapters(adapters.into_iter().collect());
    }

    /// Computes the opening of a conversation, which is all before the text of its last message, and keeps it for those
    /// that begin in the same way. Returns when that is done; an opening that is kept already, or is too short, is done.
    /// Dropping the future gives it up.
    pub async fn prime(&self, request: Request) -> Result<(), Error> {
        self.0.prime(request).await
    }

    /// Says that these flows will soon need the beginnings of their prompts, until the result is dropped.
    pub fn expect(&self, flows: Vec<Arc<str>>) -> Expectation {
        self.0.expect(flows)
    }

    /// Embeds texts.
    pub async fn embed(&self, texts: Vec<String>) -> Result<Embedded, Error> {
        self.0.embed(texts).await
    }

    /// Ends the engine: running sequences fail, and the model is freed when this returns.
    pub async fn close(&self) {
        self.0.close();
        self.ended().await;
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("limits", &self.limits()).finish_non_exhaustive()
    }
}

/// Waits for an engine's end.
pub(crate) async fn reason(end: &mut watch::Receiver<Option<String>>) -> String {
    let reason = end.wait_for(Option::is_some).await;
    reason.ok().and_then(|reason| reason.clone()).unwrap_or_else(|| "it is gone without a word".to_owned())
}

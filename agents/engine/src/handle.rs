//! What others hold of an engine.

use std::path::PathBuf;
use std::sync::Arc;

use crate::backend::{Backend, Embedded, Limits};
use crate::counters::Stats;
use crate::engine::Engine;
use crate::local::Local;
use crate::options::Options;
use crate::request::{Choice, Error, Request};
use crate::stream::{Expectation, Stream, reason};

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
    /// Of a request of class [`Along`](crate::Class::Along) all is computed that stays if the text of its last message goes on,
    /// and is left for one who comes soon.
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

//! What an engine is, wherever it runs.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::backend::{Embedded, Limits};
use crate::counters::Stats;
use crate::request::{Choice, Error, Request};
use crate::stream::{Expectation, Stream};

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
    /// See [`Handle::generate`](crate::Handle::generate).
    async fn generate(&self, request: Request) -> Result<Stream, Error>;
    /// See [`Handle::choose`](crate::Handle::choose).
    async fn choose(&self, request: Request, labels: Vec<String>) -> Result<Choice, Error>;
    /// See [`Handle::prime`](crate::Handle::prime).
    async fn prime(&self, request: Request) -> Result<(), Error>;
    /// See [`Handle::embed`](crate::Handle::embed).
    async fn embed(&self, texts: Vec<String>) -> Result<Embedded, Error>;
    /// See [`Handle::expect`](crate::Handle::expect).
    fn expect(&self, flows: Vec<Arc<str>>) -> Expectation;
    /// See [`Handle::keep_adapters`](crate::Handle::keep_adapters).
    fn keep_adapters(&self, adapters: Vec<(PathBuf, f32)>);
    /// Asks it to end.
    fn close(&self);
}

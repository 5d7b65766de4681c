//! Keeps a base as its sources are.

mod options;
mod worker;

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::chunker::Chunker;
use crate::dirty::DirtyPaths;
use crate::embedder::Embedder;
use crate::error::Error;
use crate::generation::IndexSettings;
use crate::index::Index;
use crate::job::{JobContext, memory_permits};
use crate::progress::{IndexPhase, IndexProgress};
use crate::source::Source;

pub use self::options::IndexerOptions;
use self::worker::IndexWorker;

/// Keeps a base as its sources are, until it is dropped or stopped.
///
/// It is one task that decides, and a task for each file that is read. States: scanning, indexing, idle; see [`IndexProgress`].
#[derive(Debug)]
pub struct Indexer {
    progress: watch::Receiver<IndexProgress>,
    dirty: Arc<DirtyPaths>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Indexer {
    /// Opens the base in the index and begins to compare it with its sources. Without an embedder, it is searched by words alone.
    ///
    /// # Errors
    /// If the base cannot be opened.
    pub async fn start(
        index: Index,
        base: &str,
        sources: Vec<Source>,
        embedder: Option<Arc<dyn Embedder>>,
        chunker: Arc<dyn Chunker>,
        options: IndexerOptions,
    ) -> Result<Self, Error> {
        let settings = IndexSettings {
            model: embedder.as_ref().map(|embedder| (embedder.model(), embedder.dimensions())),
            chunking: chunker.settings(),
            languages: options.languages.clone(),
        };
        let opened = index.open_base(base, &settings).await?;
        let context = JobContext {
            index,
            sources,
            embedder,
            chunker,
            languages: options.languages.clone(),
            max_file_bytes: options.max_file_bytes,
            memory: Semaphore::new(memory_permits(options.max_file_bytes) as usize),
        };
        let dirty = Arc::new(DirtyPaths::default());
        let (sender, progress) =
            watch::channel(IndexProgress { is_shadow: opened.answering.is_some(), ..IndexProgress::default() });
        let (stop, stopped) = watch::channel(false);
        let worker = IndexWorker::new(Arc::new(context), base, opened, options, dirty.clone(), sender);
        let task = tokio::spawn(worker.run(stopped));
        Ok(Self { progress, dirty, stop, task })
    }

    /// How far it is, as a value that changes.
    pub fn progress(&self) -> watch::Receiver<IndexProgress> {
        self.progress.clone()
    }

    /// Compares everything with the sources again, texts that were handed in too.
    pub fn rescan(&self) {
        self.dirty.report_all();
    }

    /// Resolves when all that is known of is indexed.
    pub async fn idle(&self) {
        let mut progress = self.progress.clone();
        // It ends only with this indexer.
        let _ = progress.wait_for(|progress| progress.phase == IndexPhase::Idle && self.dirty.is_empty()).await;
    }

    /// Ends the work on files, and waits for writes that have begun.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Err(error) = (&mut self.task).await
            && error.is_panic()
        {
            tracing::error!(%error, "an indexer panicked");
        }
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

//! What the runtime and all actors share.

use std::path::Path;
use std::sync::Arc;

use artel_journal::Journal;
use artel_stream::TaskChannels;
use tokio::sync::watch;

use crate::Loader;
use crate::clock::Clock;
use crate::lookahead::ModelLookahead;
use crate::response_cache::ResponseCache;
use crate::router::EmbeddingCache;

/// Dependencies that all actors share.
#[derive(Clone)]
pub(crate) struct SharedDeps {
    pub(crate) journal: Journal,
    pub(crate) channels: TaskChannels,
    pub(crate) loader: Arc<dyn Loader>,
    pub(crate) models_dir: Arc<Path>,
    pub(crate) clock: Clock,
    pub(crate) running_tasks: watch::Sender<usize>,
    /// Running tasks that are not idle.
    pub(crate) busy_tasks: watch::Sender<usize>,
    pub(crate) lookahead: ModelLookahead,
    pub(crate) response_cache: ResponseCache,
    pub(crate) embedding_cache: Option<Arc<EmbeddingCache>>,
}

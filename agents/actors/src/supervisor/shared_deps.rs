//! What the runtime and all actors share.

use std::path::Path;
use std::sync::Arc;

use artel_hosting::Loader;
use artel_hosting::ModelLookahead;
use artel_journal::Journal;
use artel_metrics::Metrics;
use artel_retrieval::Retrieval;
use artel_stream::TaskChannels;
use artel_task::Clock;
use artel_traces::Tracer;
use tokio::sync::{Semaphore, watch};

use crate::response_cache::ResponseCache;
use artel_admission::CallerLedger;
use artel_routing::EmbeddingCache;

/// Dependencies that all actors share.
#[derive(Clone)]
pub(crate) struct SharedDeps {
    pub(crate) journal: Journal,
    pub(crate) channels: TaskChannels,
    pub(crate) loader: Arc<dyn Loader>,
    /// Finds passages, if the daemon has an index.
    pub(crate) retrieval: Option<Retrieval>,
    pub(crate) models_dir: Arc<Path>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    /// Takes the spans of tasks, if they are traced.
    pub(crate) tracer: Option<Tracer>,
    /// What the tasks of each caller take.
    pub(crate) callers: CallerLedger,
    pub(crate) running_tasks: watch::Sender<usize>,
    /// Running tasks that are not idle.
    pub(crate) busy_tasks: watch::Sender<usize>,
    pub(crate) lookahead: ModelLookahead,
    pub(crate) response_cache: ResponseCache,
    pub(crate) embedding_cache: Option<Arc<EmbeddingCache>>,
    /// For the last resume of a task before it is set aside: such tasks run one at a time until they make progress, so that
    /// the one that ends the daemon takes no other along.
    pub(crate) probation: Arc<Semaphore>,
}

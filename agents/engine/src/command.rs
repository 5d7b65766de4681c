//! Commands to the thread that owns a model.

use tokio::sync::oneshot;

use crate::adapter_contexts::AdapterKey;
use crate::backend::{self, Embeddings};
use crate::sequence::Job;

/// A command to the engine's thread.
pub(crate) enum EngineCommand {
    Submit(Box<Job>),
    /// Only these adapters stay loaded.
    RetainAdapters(Vec<AdapterKey>),
    Embed(Vec<String>, oneshot::Sender<Result<Embeddings, backend::Error>>),
    /// A stream was drained or dropped: check again.
    Wake,
    /// End; all sequences fail.
    Close,
}

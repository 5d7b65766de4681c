//! Commands to the thread that owns a model.

use std::io;

use tokio::sync::oneshot;

use crate::adapter_sets::AdapterKey;
use crate::pooling::PoolingJob;
use crate::sequence::Job;

/// A command to the engine's thread.
pub(crate) enum EngineCommand {
    Submit(Box<Job>),
    /// Only these adapters stay loaded.
    RetainAdapters(Vec<AdapterKey>),
    Pool(PoolingJob),
    /// Drops all prefixes that may hold the text of a caller. Answered once their files are gone.
    ForgetText(oneshot::Sender<io::Result<()>>),
    /// A stream was drained or dropped: check again.
    Wake,
    /// End; all sequences fail.
    Close,
}

//! What other threads ask of the thread that owns a model.

use tokio::sync::oneshot;

use crate::backend::Embedded;
use crate::lanes;
use crate::sequence::Job;

/// One thing that is asked.
pub(crate) enum Command {
    Generate(Box<Job>),
    /// Only these adapters are to stay loaded.
    Adapters(Vec<lanes::Key>),
    Embed(Vec<String>, oneshot::Sender<Result<Embedded, String>>),
    /// A stream was drained or dropped: look again.
    Wake,
    /// End; all sequences fail.
    Close,
}

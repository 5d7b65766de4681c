//! The messages to a task runner.

use artel_task::StepId;
use artel_task::event::Failure;
use ractor::RpcReplyPort;
use tokio::sync::OwnedSemaphorePermit;

use crate::answer::{Answer, AnswerRejection};
use crate::completion::StepOutcome;

/// Messages of a task runner.
pub(crate) enum Message {
    /// A step ended: journals that and starts the next steps.
    StepEnded { step: StepId, result: Box<Result<StepOutcome, Failure>> },
    /// Ends the task; replies whether that is on disk.
    Cancel { reason: String, reply: RpcReplyPort<bool> },
    /// Ends one step and all steps inside of it; replies whether that is on disk, and `None` at once if it does not run.
    CancelStep { step: StepId, reason: String, reply: RpcReplyPort<Option<bool>> },
    /// Ends a step that waits for a person with this answer; replies once that is on disk.
    Answer { step: Option<StepId>, answer: Answer, reply: RpcReplyPort<Result<(), AnswerRejection>> },
    /// The turn of a task has come whose last resume before it is set aside this is.
    Admit(OwnedSemaphorePermit),
    /// Sends a step that found its role's queue full to the expert again.
    Redispatch(StepId),
    /// A retry, the deadline of a question or the graph's time limit may be due.
    Wake,
    /// Panics, as a bug of ours would.
    #[cfg(test)]
    Panic,
}

//! How the result of a step comes back to its task runner: exactly once, even if the step's work panics.

use artel_task::StepId;
use artel_task::event::{Decision, Failure, FailureCode, Output, ResultSource, Timings, Usage};
use ractor::ActorRef;

use crate::task_runner::Message;

/// The result of a step.
pub(crate) enum StepOutcome {
    /// A role's answer.
    Answer { output: Output, usage: Usage, timings: Timings, source: ResultSource },
    /// A router's decision about this text.
    Routed { decision: Decision, text: String },
}

/// Sends a step's result to its task runner. Dropped without a result, it reports that the step was interrupted.
pub(crate) struct Completion(Option<(ActorRef<Message>, StepId)>);

impl Completion {
    pub(crate) fn new(runner: ActorRef<Message>, step: StepId) -> Self {
        Self(Some((runner, step)))
    }

    pub(crate) fn send(mut self, result: Result<StepOutcome, Failure>) {
        self.complete(result);
    }

    /// Sends nothing: the step was cancelled, or has no result of its own.
    pub(crate) fn discard(mut self) {
        self.0 = None;
    }

    fn complete(&mut self, result: Result<StepOutcome, Failure>) {
        if let Some((runner, step)) = self.0.take() {
            // A task runner that has stopped has no use for it.
            let _ = runner.cast(Message::StepEnded { step, result: Box::new(result) });
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.complete(Err(failure(FailureCode::Interrupted, "the step's work stopped before it gave a result")));
    }
}

pub(crate) fn failure(code: FailureCode, message: impl Into<String>) -> Failure {
    Failure { code, message: message.into(), step: None }
}

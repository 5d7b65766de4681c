//! How a step's end comes back to its conductor: exactly once, whatever happens to the one who works.

use artel_task::StepId;
use artel_task::event::{FailureCode, Decision, Failure, Output, ResultSource, Timings, Usage};
use ractor::ActorRef;

use crate::conductor::Message;

/// What a step gave.
pub(crate) enum Outcome {
    /// A role's answer.
    Answer { output: Output, usage: Usage, timings: Timings, source: ResultSource },
    /// A router's decision about this text.
    Routed { decision: Decision, text: String },
}

/// The way back. Dropped without a word, it says that the step was cut off.
pub(crate) struct Report(Option<(ActorRef<Message>, StepId)>);

impl Report {
    pub(crate) fn new(conductor: ActorRef<Message>, step: StepId) -> Self {
        Self(Some((conductor, step)))
    }

    pub(crate) fn send(mut self, result: Result<Outcome, Failure>) {
        self.say(result);
    }

    /// Says nothing: the step was cancelled, and nobody waits for a word.
    pub(crate) fn forget(mut self) {
        self.0 = None;
    }

    fn say(&mut self, result: Result<Outcome, Failure>) {
        if let Some((conductor, step)) = self.0.take() {
            // A conductor that is gone has no use for it.
            let _ = conductor.cast(Message::Ended { step, result: Box::new(result) });
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.say(Err(failure(FailureCode::Interrupted, "the one who worked on the step stopped in the middle")));
    }
}

pub(crate) fn failure(code: FailureCode, message: impl Into<String>) -> Failure {
    Failure { code, message: message.into(), step: None }
}

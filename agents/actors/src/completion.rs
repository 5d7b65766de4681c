//! How the result of a step comes back to its task runner: exactly once, even if the step's work panics.

use artel_task::event::{Decision, Failure, FailureCode, Output, ResultSource, Timings, Usage};

/// The result of a step.
pub(crate) enum StepOutcome {
    /// A role's answer.
    Answer { output: Output, usage: Usage, timings: Timings, source: ResultSource },
    /// A router's decision about this text.
    Routed { decision: Decision, text: String },
}

/// Takes a step's result to its task runner.
type SendResult = Box<dyn FnOnce(Result<StepOutcome, Failure>) + Send + Sync>;

/// Sends a step's result to its task runner. Dropped without a result, it reports that the step was interrupted.
pub(crate) struct Completion(Option<SendResult>);

impl Completion {
    pub(crate) fn new(send: impl FnOnce(Result<StepOutcome, Failure>) + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(send)))
    }

    pub(crate) fn send(mut self, result: Result<StepOutcome, Failure>) {
        self.complete(result);
    }

    /// Sends nothing: the step was cancelled, or has no result of its own.
    pub(crate) fn discard(mut self) {
        self.0 = None;
    }

    fn complete(&mut self, result: Result<StepOutcome, Failure>) {
        if let Some(send) = self.0.take() {
            send(result);
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.complete(Err(Failure::new(FailureCode::Interrupted, "the step's work stopped before it gave a result")));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A completion, and the codes of the failures that it has sent.
    fn completion() -> (Completion, Arc<Mutex<Vec<FailureCode>>>) {
        let codes = Arc::new(Mutex::new(Vec::new()));
        let sent = codes.clone();
        let send = move |result: Result<StepOutcome, Failure>| {
            sent.lock().unwrap().extend(result.err().map(|failure| failure.code));
        };
        (Completion::new(send), codes)
    }

    #[test]
    fn a_result_is_sent_once_and_its_absence_is_an_interruption() {
        let (one, codes) = completion();
        one.send(Err(Failure::new(FailureCode::Idle, "slow")));
        assert_eq!(*codes.lock().unwrap(), [FailureCode::Idle]);
        let (dropped, codes) = completion();
        drop(dropped);
        assert_eq!(*codes.lock().unwrap(), [FailureCode::Interrupted]);
        let (discarded, codes) = completion();
        discarded.discard();
        assert!(codes.lock().unwrap().is_empty());
    }
}

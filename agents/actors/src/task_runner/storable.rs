//! Whether an event can be stored and sent.

use artel_journal::Journal;
use artel_task::{Event, EventKind};

use crate::answer::UnsendableOutput;

/// Why an event with an output can be neither stored nor sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnstorableOutput {
    /// No client could receive the output.
    #[error(transparent)]
    Unsendable(#[from] UnsendableOutput),
    /// The journal cannot store it.
    #[error(transparent)]
    Journal(#[from] artel_journal::Error),
}

/// An error unless an event with a step's or the task's output can be stored and sent.
pub(super) fn check_event(event: &Event) -> Result<(), UnstorableOutput> {
    if let EventKind::StepFinished { output, .. } | EventKind::Completed { output, .. } = &event.kind {
        UnsendableOutput::check(output)?;
    }
    Ok(Journal::check_storable(event)?)
}

#[cfg(test)]
mod tests {
    use artel_task::event::{MAX_OUTPUT_BYTES, Output, Timestamp};
    use artel_task::{Seq, TaskId};

    use super::*;

    #[test]
    fn an_output_that_no_client_could_receive_is_refused() {
        let completed = |bytes: usize| {
            let kind = EventKind::Completed { output: Output::text("x".repeat(bytes)), instead_of: None };
            check_event(&Event { task: TaskId::from_bytes([1; 16]), seq: Seq(2), at: Timestamp(0), kind })
        };
        assert!(completed(10).is_ok());
        assert!(matches!(
            completed(MAX_OUTPUT_BYTES + 1),
            Err(UnstorableOutput::Unsendable(UnsendableOutput::TooLarge { .. }))
        ));
    }
}

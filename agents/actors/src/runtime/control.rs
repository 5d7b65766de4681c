//! Control of running tasks: cancellation and answers.

use std::sync::atomic::Ordering;

use artel_task::{Event, EventKind, StepId, TaskId};
use ractor::call;

use super::{Error, Runtime};
use crate::answer::{Answer, AnswerRejection};
use crate::supervisor::Message;

impl Runtime {
    /// Cancels a task; when this returns, that is on disk. A task that has ended is left as it is.
    ///
    /// # Errors
    /// [`Error::NoTask`]; [`Error::Suspended`] if the journal does not take the cancellation, [`Error::ShuttingDown`].
    pub async fn cancel(&self, task: TaskId, reason: &str) -> Result<(), Error> {
        self.shared.journal.last_seq(task).await?.ok_or(Error::NoTask(task))?;
        let message = |reply| Message::CancelTask { task, reason: reason.to_owned(), reply };
        let cancelled = call!(self.supervisor, message);
        // It may have ended by itself, before or meanwhile.
        if matches!(cancelled, Ok(true)) || self.has_ended(task).await? {
            return Ok(());
        }
        Err(self.suspended(task))
    }

    /// Cancels one step of a task, with all steps inside of it: it fails, and its branch ends; when this returns, that is
    /// on disk. A step that has ended is left as it is.
    ///
    /// # Errors
    /// Those of [`Runtime::cancel`], [`Error::NoStep`].
    pub async fn cancel_step(&self, task: TaskId, step: &str, reason: &str) -> Result<(), Error> {
        let no_step = || Error::NoStep { task, step: step.to_owned() };
        self.shared.journal.last_seq(task).await?.ok_or(Error::NoTask(task))?;
        let id = StepId::parse(step).ok_or_else(no_step)?;
        let (step_id, reason) = (id.clone(), reason.to_owned());
        let message = |reply| Message::CancelStep { task, step: step_id, reason, reply };
        match call!(self.supervisor, message) {
            Ok(Some(true)) => Ok(()),
            Ok(Some(false)) => Err(self.suspended(task)),
            Ok(None) | Err(_) => {
                let history = self.history(task).await?;
                if !has_started(&history, &id) {
                    return Err(no_step());
                }
                Ok(())
            }
        }
    }

    /// Answers a step that waits for a person, or the only one that does; when this returns, that is on disk.
    ///
    /// # Errors
    /// [`Error::NoTask`], [`Error::NoStep`], [`Error::NotWaiting`], [`Error::AmbiguousStep`], [`Error::InvalidAnswer`], and
    /// those of [`Runtime::cancel`].
    pub async fn answer(&self, task: TaskId, step: Option<&str>, answer: Answer) -> Result<(), Error> {
        let no_step = |step: &str| Error::NoStep { task, step: step.to_owned() };
        self.shared.journal.last_seq(task).await?.ok_or(Error::NoTask(task))?;
        let id = step.map(|step| StepId::parse(step).ok_or_else(|| no_step(step))).transpose()?;
        let step_id = id.clone();
        let message = |reply| Message::AnswerStep { task, step: step_id, answer, reply };
        match call!(self.supervisor, message) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(AnswerRejection::Invalid(error))) => Err(Error::InvalidAnswer(error.to_string())),
            Ok(Err(AnswerRejection::AmbiguousStep(steps))) => {
                Err(Error::AmbiguousStep { task, steps: steps.iter().map(ToString::to_string).collect() })
            }
            Ok(Err(AnswerRejection::NotWaiting)) => {
                let history = self.history(task).await?;
                if let (Some(id), Some(step)) = (&id, step)
                    && !has_started(&history, id)
                {
                    return Err(no_step(step));
                }
                Err(Error::NotWaiting { task, step: step.map(str::to_owned) })
            }
            // It may have ended meanwhile.
            Ok(Err(AnswerRejection::Suspended)) | Err(_) if self.has_ended(task).await? => {
                Err(Error::NotWaiting { task, step: step.map(str::to_owned) })
            }
            Ok(Err(AnswerRejection::Suspended)) | Err(_) => Err(self.suspended(task)),
        }
    }

    /// Whether a task has its last event.
    async fn has_ended(&self, task: TaskId) -> Result<bool, Error> {
        let Some(last) = self.shared.journal.last_seq(task).await? else { return Ok(true) };
        self.is_last_event(task, last).await
    }

    fn suspended(&self, task: TaskId) -> Error {
        if self.is_draining.load(Ordering::Acquire) { Error::ShuttingDown } else { Error::Suspended(task) }
    }
}

fn has_started(history: &[Event], id: &StepId) -> bool {
    history.iter().any(|event| matches!(&event.kind, EventKind::StepStarted { step, .. } if step == id))
}

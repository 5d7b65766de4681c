//! Control of running tasks: cancellation and answers.

use std::sync::atomic::Ordering;

use artel_task::{Event, EventKind, StepId, TaskId};
use ractor::call;

use super::resume::TaskStanding;
use super::{Error, Runtime};
use crate::answer::{Answer, AnswerRejection};
use crate::supervisor::Message;
use crate::task_history::append_event;

impl Runtime {
    /// Cancels a task, even one that is set aside; when this returns, that is on disk. A task that has ended is left as it is.
    ///
    /// # Errors
    /// [`Error::NoTask`]; [`Error::Suspended`] if the journal does not take the cancellation, [`Error::ShuttingDown`].
    pub async fn cancel(&self, task: TaskId, reason: &str) -> Result<(), Error> {
        if self.shared.journal.summary(task).await?.is_none() {
            return Err(Error::NoTask(task));
        }
        let message = |reply| Message::CancelTask { task, reason: reason.to_owned(), reply };
        if matches!(call!(self.supervisor, message), Ok(true)) {
            return Ok(());
        }
        match self.standing(task).await? {
            // By itself, before or meanwhile.
            TaskStanding::Ended => Ok(()),
            TaskStanding::Open => Err(self.suspended(task)),
            TaskStanding::SetAside(_) | TaskStanding::Damaged(_) => self.cancel_unrun(task, reason).await,
        }
    }

    /// Cancels a task that nothing runs. Damaged rows are left as they are, the end follows them.
    pub(super) async fn cancel_unrun(&self, task: TaskId, reason: &str) -> Result<(), Error> {
        let cancelled = EventKind::Cancelled { reason: reason.to_owned(), partial: Vec::new() };
        match append_event(&self.shared, task, cancelled).await {
            Ok(()) => self.shared.channels.close(task),
            // By another client.
            Err(artel_journal::Error::Ended { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
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
                self.check_not_set_aside(task).await?;
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
                self.check_not_set_aside(task).await?;
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

    /// An error if the task is set aside.
    async fn check_not_set_aside(&self, task: TaskId) -> Result<(), Error> {
        match self.standing(task).await? {
            TaskStanding::SetAside(reason) | TaskStanding::Damaged(reason) => Err(Error::SetAside { task, reason }),
            TaskStanding::Ended | TaskStanding::Open => Ok(()),
        }
    }

    pub(super) fn suspended(&self, task: TaskId) -> Error {
        if self.is_draining.load(Ordering::Acquire) { Error::ShuttingDown } else { Error::Suspended(task) }
    }
}

fn has_started(history: &[Event], id: &StepId) -> bool {
    history.iter().any(|event| matches!(&event.kind, EventKind::StepStarted { step, .. } if step == id))
}

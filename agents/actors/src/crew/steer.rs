//! Steering tasks that run: cancelling, answering.

use std::sync::atomic::Ordering;

use artel_task::{Event, EventKind, StepId, TaskId};
use ractor::call;

use super::{Crew, Error};
use crate::conductor::{Answer, Refusal};
use crate::supervisor::Message;

impl Crew {
    /// Cancels a task; when this returns, that is on disk. A task that has ended stays as it is.
    ///
    /// # Errors
    /// [`Error::NoTask`]; [`Error::Rests`] for a task that the journal does not let go on, [`Error::ShuttingDown`].
    pub async fn cancel(&self, task: TaskId, reason: &str) -> Result<(), Error> {
        self.links.journal.last(task).await?.ok_or(Error::NoTask(task))?;
        let message = |reply| Message::Cancel { task, reason: reason.to_owned(), reply };
        let cancelled = call!(self.supervisor, message);
        // It may have ended in its own way, before or meanwhile.
        if matches!(cancelled, Ok(true)) || self.is_over(task).await? {
            return Ok(());
        }
        Err(self.rests(task))
    }

    /// Cancels one step of a task, with all that runs inside of it: it fails, and its branch ends; when this returns, that is
    /// on disk. A step that has ended stays as it is.
    ///
    /// # Errors
    /// Those of [`Crew::cancel`], [`Error::NoStep`].
    pub async fn cancel_step(&self, task: TaskId, step: &str, reason: &str) -> Result<(), Error> {
        let no_step = || Error::NoStep { task, step: step.to_owned() };
        self.links.journal.last(task).await?.ok_or(Error::NoTask(task))?;
        let id = StepId::parse(step).ok_or_else(no_step)?;
        let (of, reason) = (id.clone(), reason.to_owned());
        let message = |reply| Message::CancelStep { task, step: of, reason, reply };
        match call!(self.supervisor, message) {
            Ok(Some(true)) => Ok(()),
            Ok(Some(false)) => Err(self.rests(task)),
            Ok(None) | Err(_) => {
                let history = self.history(task).await?;
                if !began(&history, &id) {
                    return Err(no_step());
                }
                Ok(())
            }
        }
    }

    /// Answers a step that waits for a person, or the only one that does; when this returns, that is on disk.
    ///
    /// # Errors
    /// [`Error::NoTask`], [`Error::NoStep`], [`Error::NotWaiting`], [`Error::SeveralWait`], [`Error::BadAnswer`], and those of
    /// [`Crew::cancel`].
    pub async fn answer(&self, task: TaskId, step: Option<&str>, answer: Answer) -> Result<(), Error> {
        let no_step = |step: &str| Error::NoStep { task, step: step.to_owned() };
        self.links.journal.last(task).await?.ok_or(Error::NoTask(task))?;
        let id = step.map(|step| StepId::parse(step).ok_or_else(|| no_step(step))).transpose()?;
        let of = id.clone();
        let message = |reply| Message::Answer { task, step: of, answer, reply };
        match call!(self.supervisor, message) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Refusal::Bad(why))) => Err(Error::BadAnswer(why)),
            Ok(Err(Refusal::Several(steps))) => {
                Err(Error::SeveralWait { task, steps: steps.iter().map(ToString::to_string).collect() })
            }
            Ok(Err(Refusal::NotWaiting)) => {
                let history = self.history(task).await?;
                if let (Some(id), Some(step)) = (&id, step)
                    && !began(&history, id)
                {
                    return Err(no_step(step));
                }
                Err(Error::NotWaiting { task, step: step.map(str::to_owned) })
            }
            // It may have ended meanwhile.
            Ok(Err(Refusal::Rests)) | Err(_) if self.is_over(task).await? => {
                Err(Error::NotWaiting { task, step: step.map(str::to_owned) })
            }
            Ok(Err(Refusal::Rests)) | Err(_) => Err(self.rests(task)),
        }
    }

    /// Whether a task has its last event.
    async fn is_over(&self, task: TaskId) -> Result<bool, Error> {
        let Some(last) = self.links.journal.last(task).await? else { return Ok(true) };
        self.ends_with(task, last).await
    }

    fn rests(&self, task: TaskId) -> Error {
        if self.closing.load(Ordering::Acquire) { Error::ShuttingDown } else { Error::Rests(task) }
    }
}

fn began(history: &[Event], id: &StepId) -> bool {
    history.iter().any(|event| matches!(&event.kind, EventKind::StepStarted { step, .. } if step == id))
}

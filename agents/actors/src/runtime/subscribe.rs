//! The events of a task: past ones, and those to come.

use std::sync::Arc;

use artel_journal::{DamagedTask, TaskStatus, TaskSummary};
use artel_stream::{LiveSubscription, TaskSubscription};
use artel_task::{Event, EventKind, Seq, TaskId};

use super::{Error, Runtime};
use crate::task_history::history;

impl Runtime {
    /// Subscribes to a task from the event after `after`, and to its tokens from now on if `tokens` is set.
    ///
    /// # Errors
    /// [`Error::NoTask`], [`Error::SeqOutOfRange`], and the errors of the journal.
    pub async fn subscribe(&self, task: TaskId, after: Seq, tokens: bool) -> Result<TaskSubscription, Error> {
        let journal = self.shared.journal.clone();
        // To live items before the journal is read, so that no event is missed between the two.
        let subscribed = match self.shared.channels.subscribe(task, tokens) {
            None if self.is_set_aside(task).await? => {
                // It may be taken up again, or end, while it is watched.
                self.shared.channels.open(task, None);
                self.shared.channels.subscribe(task, tokens)
            }
            subscribed => subscribed,
        };
        let (live, progress) = match subscribed {
            Some(LiveSubscription { live, backlog: Some(events), progress }) if reaches(&events, after) => {
                let subscription = TaskSubscription::from_memory(journal, task, after, live, events);
                return Ok(subscription.with_progress(progress));
            }
            Some(LiveSubscription { live, progress, .. }) => (Some(live), progress),
            None => (None, Vec::new()),
        };
        let last = journal.last_seq(task).await?.ok_or(Error::NoTask(task))?;
        if after > last {
            return Err(Error::SeqOutOfRange { task, last, after });
        }
        let subscription = TaskSubscription::from_journal(journal, task, after, live, last).with_progress(progress);
        // A client that has the last event and subscribes again learns that the task has ended, not that it is suspended.
        let is_over = after == last && self.is_last_event(task, last).await?;
        Ok(if is_over { subscription.at_the_end() } else { subscription })
    }

    /// Whether the journal says that the task is set aside.
    async fn is_set_aside(&self, task: TaskId) -> Result<bool, Error> {
        let summary = self.shared.journal.summary(task).await?;
        Ok(matches!(summary, Some(Ok(summary)) if summary.status == TaskStatus::SetAside))
    }

    /// The entry of a task in lists, or what is wrong with its row.
    ///
    /// # Errors
    /// [`Error::NoTask`], and the errors of the journal.
    pub async fn summary(&self, task: TaskId) -> Result<Result<TaskSummary, DamagedTask>, Error> {
        self.shared.journal.summary(task).await?.ok_or(Error::NoTask(task))
    }

    /// All events of a task so far.
    ///
    /// # Errors
    /// [`Error::NoTask`], and the errors of the journal.
    pub async fn history(&self, task: TaskId) -> Result<Vec<Event>, Error> {
        let events = history(&self.shared.journal, task).await?;
        if events.is_empty() { Err(Error::NoTask(task)) } else { Ok(events) }
    }

    /// All published events of a task, which may be some fewer than are on disk; from memory if they are there.
    ///
    /// # Errors
    /// [`Error::NoTask`], and the errors of the journal.
    pub async fn published_events(&self, task: TaskId) -> Result<Vec<Event>, Error> {
        match self.shared.channels.events(task) {
            Some(events) => Ok(events.iter().map(|event| Event::clone(event)).collect()),
            None => self.history(task).await,
        }
    }

    /// Whether the text of a task is erased. One that does not exist, or not any more, is not.
    ///
    /// # Errors
    /// The errors of the journal.
    pub async fn is_erased(&self, task: TaskId) -> Result<bool, Error> {
        let first = self.shared.journal.events(task, Seq(0), 1).await?;
        let is_erased = |event: &Event| matches!(&event.kind, EventKind::Accepted(spec) if spec.erased.is_some());
        Ok(first.first().is_some_and(is_erased))
    }

    /// Whether this event of a task is its last one.
    pub(super) async fn is_last_event(&self, task: TaskId, seq: Seq) -> Result<bool, Error> {
        let before = Seq(seq.0.saturating_sub(1));
        let event = self.shared.journal.events(task, before, 1).await?;
        Ok(event.first().is_some_and(|event| event.kind.is_last()))
    }
}

/// Whether these are all events up to this one. A client may know it from a list before it is published.
fn reaches(events: &[Arc<Event>], after: Seq) -> bool {
    events.last().is_some_and(|last| after <= last.seq)
}

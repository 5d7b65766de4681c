//! What happened to a task, and what happens.

use std::sync::Arc;

use artel_task::{Event, Seq, TaskId};

use super::{Crew, Error};
use crate::conductor::history;
use crate::feed::{Listen, Watch};

impl Crew {
    /// Watches a task from the event after `after`, and its tokens from now on if they are wanted.
    ///
    /// # Errors
    /// [`Error::NoTask`], [`Error::SeqOutOfRange`], and what the journal says.
    pub async fn watch(&self, task: TaskId, after: Seq, tokens: bool) -> Result<Watch, Error> {
        // Live items are heard before the journal is asked, so that nothing falls between the two.
        let heard = self.links.feeds.listen(task, tokens);
        let journal = self.links.journal.clone();
        let live = match heard {
            Some(Listen { live, known: Some(events) }) if reaches(&events, after) => {
                return Ok(Watch::known(journal, task, after, live, events));
            }
            heard => heard.map(|heard| heard.live),
        };
        let last = journal.last(task).await?.ok_or(Error::NoTask(task))?;
        if after > last {
            return Err(Error::SeqOutOfRange { task, last, after });
        }
        let watch = Watch::new(journal, task, after, live, last);
        // Whoever has heard the last event and comes back hears that there is no more, and not that the task rests.
        let over = after == last && self.ends_with(task, last).await?;
        Ok(if over { watch.at_the_end() } else { watch })
    }

    /// All events of a task so far.
    ///
    /// # Errors
    /// [`Error::NoTask`], and what the journal says.
    pub async fn history(&self, task: TaskId) -> Result<Vec<Event>, Error> {
        let events = history(&self.links.journal, task).await?;
        if events.is_empty() { Err(Error::NoTask(task)) } else { Ok(events) }
    }

    /// All events of a task that were announced so far, which may be some fewer than are on disk; from memory where they are
    /// at hand.
    ///
    /// # Errors
    /// [`Error::NoTask`], and what the journal says.
    pub async fn announced(&self, task: TaskId) -> Result<Vec<Event>, Error> {
        match self.links.feeds.known(task) {
            Some(events) => Ok(events.iter().map(|event| Event::clone(event)).collect()),
            None => self.history(task).await,
        }
    }

    /// Whether this event of a task is its last one.
    pub(super) async fn ends_with(&self, task: TaskId, seq: Seq) -> Result<bool, Error> {
        let before = Seq(seq.0.saturating_sub(1));
        let event = self.links.journal.events(task, before, 1).await?;
        Ok(event.first().is_some_and(|event| event.kind.is_last()))
    }
}

/// Whether these are all events up to this one. It may be known from a list before it is announced.
fn reaches(events: &[Arc<Event>], after: Seq) -> bool {
    events.last().is_some_and(|last| after <= last.seq)
}

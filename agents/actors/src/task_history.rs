//! A task's events in the journal: all of them, and the last one of a task that nothing runs.

use std::sync::Arc;

use artel_journal::Journal;
use artel_stream::TaskChannels;
use artel_task::event::Failure;
use artel_task::{Event, EventKind, Seq, TaskId};

use crate::clock::Clock;

/// Events read from the journal at once.
const PAGE_EVENTS: u32 = 1024;

/// All events of a task.
pub(crate) async fn history(journal: &Journal, task: TaskId) -> Result<Vec<Event>, artel_journal::Error> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let page = journal.events(task, events.last().map_or(Seq(0), |event| event.seq), PAGE_EVENTS).await?;
        let is_full = page.len() == PAGE_EVENTS as usize;
        events.extend(page);
        if !is_full {
            return Ok(events);
        }
    }
}

/// Ends a task that cannot be continued, and closes its channel.
pub(crate) async fn fail_task(
    journal: &Journal,
    channels: &TaskChannels,
    clock: &Clock,
    task: TaskId,
    failure: Failure,
) {
    let ended = async {
        let events = history(journal, task).await?;
        let last = events.last();
        // The wall clock may have been set back since.
        let at = last.map_or(clock.now(), |last| clock.now().max(last.at));
        let seq = last.map(|last| last.seq).unwrap_or_default().next();
        let event = Event { task, seq, at, kind: EventKind::Failed { failure } };
        journal.append(vec![event.clone()]).await?;
        channels.open(task, None).publish(Arc::new(event));
        Ok::<_, artel_journal::Error>(())
    };
    if let Err(error) = ended.await {
        tracing::error!(%task, %error, "failed to journal the task's end: the task is suspended");
    }
    channels.close(task);
}

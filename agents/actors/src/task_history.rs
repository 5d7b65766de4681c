//! A task's events in the journal: all of them, and those of a task that nothing runs.

use std::sync::Arc;

use artel_journal::Journal;
use artel_task::{Event, EventKind, Seq, TaskId};
use artel_traces::TaskTracer;

use crate::supervisor::SharedDeps;

/// Events read from the journal at once.
const PAGE_EVENTS: u32 = 1024;
/// The limit of the reason why a task is set aside: more than a person reads.
const MAX_REASON_BYTES: usize = 8192;

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

/// Sets a task aside that nothing runs. If its rows are damaged they are left as they are, for a repair: the task is then set
/// aside by not being run.
pub(crate) async fn set_aside_task(shared: &SharedDeps, task: TaskId, mut reason: String) {
    reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
    tracing::error!(%task, reason, "the task is set aside");
    let set_aside = async {
        let events = history(&shared.journal, task).await?;
        let has_start = events.first().is_some_and(|first| matches!(first.kind, EventKind::Accepted(_)));
        if has_start { append_event(shared, task, EventKind::SetAside { reason }).await } else { Ok(()) }
    };
    if let Err(error) = set_aside.await {
        tracing::error!(%task, %error, "failed to journal that the task is set aside: its rows are left as they are");
    }
    shared.channels.close(task);
}

/// Appends an event to a task that nothing runs, counts it and publishes it.
pub(crate) async fn append_event(
    shared: &SharedDeps,
    task: TaskId,
    kind: EventKind,
) -> Result<(), artel_journal::Error> {
    let SharedDeps { journal, channels, clock, metrics, .. } = shared;
    let last = journal.last_seq(task).await?.unwrap_or_default();
    // The wall clock may have been set back since the last event, which may be damaged.
    let last_event = journal.events(task, Seq(last.0.saturating_sub(1)), 1).await.unwrap_or_default();
    let at = last_event.last().map_or(clock.now(), |last| clock.now().max(last.at));
    let event = Event { task, seq: last.next(), at, kind };
    journal.append(vec![event.clone()]).await?;
    metrics.tasks.committed_alone(&event);
    if event.kind.is_last() {
        tell_end(shared, &event).await;
    }
    channels.open(task, None).publish(Arc::new(event));
    Ok(())
}

/// Tells the span of a task that nothing runs, and that ended with this event. Its graph may be what it lacks.
async fn tell_end(shared: &SharedDeps, last: &Event) {
    let Some(tracer) = &shared.tracer else { return };
    // Of a task whose rows are damaged, nothing is told.
    let Ok(events) = history(&shared.journal, last.task).await else { return };
    let before = events.split_last().map_or(&[][..], |(_, before)| before);
    if let Some(mut task) = TaskTracer::resume(tracer, before, None) {
        task.committed(last);
    }
}

//! What the journal has of the use of callers, at the start of the daemon.

use artel_task::event::Timestamp;
use artel_task::{CallerName, EventKind, TaskId};

use super::Runtime;
use crate::task_history::history;
use artel_admission::{midnight_before, tokens_of};

impl Runtime {
    /// Counts the model tokens that an earlier run used today, before any task runs. The user whose daemon it is has no quota, and is
    /// left out.
    pub(super) async fn count_used_today(&self) -> Result<(), artel_journal::Error> {
        let now = self.shared.clock.now();
        let midnight = midnight_before(now);
        for task in self.shared.journal.tasks_of_callers(midnight).await? {
            match self.used_since(task, midnight).await {
                Ok(Some((caller, tokens))) => self.shared.callers.used(&caller, tokens, now),
                // It is set aside when it is resumed.
                Ok(None) | Err(artel_journal::Error::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The owner of a task, and the tokens that it used at this time or later; what a fork copied is not its own.
    async fn used_since(
        &self,
        task: TaskId,
        since: Timestamp,
    ) -> Result<Option<(CallerName, u64)>, artel_journal::Error> {
        let events = history(&self.shared.journal, task).await?;
        let Some(EventKind::Accepted(spec)) = events.first().map(|first| &first.kind) else { return Ok(None) };
        let copied = spec.forked_from.as_ref().map_or(0, |origin| origin.copied as usize);
        let own = events.iter().skip(1 + copied).filter(|event| event.at >= since);
        Ok(Some((spec.owner.clone(), own.map(tokens_of).sum())))
    }
}

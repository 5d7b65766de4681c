//! The tasks whose steps use an engine: when it exits unexpectedly, one of them may have ended it.

use std::collections::BTreeSet;

use artel_task::TaskId;

use super::step_failures::LeaseOutcome;

/// The tasks that use the engine that is loaded.
#[derive(Debug, Default)]
pub(super) struct EngineUsers {
    /// A task for each of its leases.
    holders: Vec<TaskId>,
    /// Tasks whose lease ended with the engine, before its host knew of its end.
    interrupted: BTreeSet<TaskId>,
}

impl EngineUsers {
    /// A lease was granted.
    pub(super) fn on_granted(&mut self, task: Option<TaskId>) {
        self.holders.extend(task);
    }

    /// A lease has ended.
    pub(super) fn on_released(&mut self, task: Option<TaskId>, outcome: &LeaseOutcome) {
        let Some(task) = task else { return };
        if let Some(at) = self.holders.iter().position(|holder| *holder == task) {
            self.holders.swap_remove(at);
        }
        if *outcome == LeaseOutcome::Interrupted {
            self.interrupted.insert(task);
        }
    }

    /// The tasks that used the engine when it ended.
    pub(super) fn take(&mut self) -> BTreeSet<TaskId> {
        let Self { holders, interrupted } = std::mem::take(self);
        holders.into_iter().chain(interrupted).collect()
    }
}

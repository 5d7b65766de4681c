//! The failures of a model in a row, and the pauses between attempts that follow from them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use artel_task::TaskId;

use super::unavailable::EngineUnavailable;

/// The pause after a first failure; it doubles with each further one.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The longest pause after failures that may pass by themselves.
const MAX_TRANSIENT_DELAY: Duration = Duration::from_secs(30);
/// The longest pause after failures that repeat until a file or a setting is changed: each attempt may read or hash a whole
/// file, and a file that was repaired is found within minutes without a command.
const MAX_PERMANENT_DELAY: Duration = Duration::from_secs(300);
/// After this many failures in a row that may pass by themselves, a model is given up until it is loaded by name or the
/// catalog changes: an engine that always crashes must not keep the machine busy.
const MAX_FAILURES: u32 = 5;

/// The exits of a task: as many as a step has attempts before its task is set aside. Only the first of them counts against the
/// engine, and those after the last: a task may have more steps than one.
const MAX_TASK_FAILURES: u32 = 4;

/// Failures since the engine last served well.
#[derive(Debug, Default)]
pub(super) struct LoadFailures {
    /// Loads that failed and exits, in a row.
    transient: u32,
    /// Failures that repeat, in a row.
    permanent: u32,
    /// How many of the exits happened while the engine computed for a task.
    exits_of_tasks: BTreeMap<TaskId, u32>,
}

impl LoadFailures {
    /// The pause after a load that failed; none if the model is given up.
    pub(super) fn on_load_failed(&mut self, reason: &EngineUnavailable) -> Option<Duration> {
        if !reason.is_transient() {
            return Some(self.on_permanent());
        }
        let pause = growing(self.transient, MAX_TRANSIENT_DELAY);
        self.permanent = 0;
        self.transient += 1;
        (self.transient < MAX_FAILURES).then_some(pause)
    }

    /// The pause after a placement that failed. That is no failure of the engine and never gives it up: memory or a device may
    /// become available at any time.
    pub(super) fn on_placement_failed(&mut self, reason: &EngineUnavailable) -> Duration {
        if !reason.is_transient() {
            return self.on_permanent();
        }
        self.permanent = 0;
        FIRST_RETRY_DELAY
    }

    /// The pause after an engine exited unexpectedly; none if the model is given up. For an engine that had served well, this
    /// is the first failure. An exit while the engine computed for a task that was there at an earlier one is that task's, not the
    /// engine's: the task will be set aside, and others go on.
    pub(super) fn on_exited(&mut self, was_healthy: bool, tasks: &BTreeSet<TaskId>) -> Option<Duration> {
        if was_healthy {
            self.reset();
        }
        let mut is_of_task = false;
        for task in tasks {
            let exits = self.exits_of_tasks.entry(*task).or_default();
            is_of_task |= (1..MAX_TASK_FAILURES).contains(exits);
            *exits += 1;
        }
        self.transient += u32::from(!is_of_task);
        // It is loaded again with the next request.
        (self.transient < MAX_FAILURES).then_some(Duration::ZERO)
    }

    /// The model was loaded: its files are in order.
    pub(super) fn on_loaded(&mut self) {
        self.permanent = 0;
    }

    /// The model is asked for by name: pauses begin anew, and a model that was given up is tried once.
    pub(super) fn on_forced(&mut self) {
        self.permanent = 0;
    }

    /// Forgets all failures: the engine has served well, or the catalog has changed.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Loads that failed and exits, in a row.
    pub(super) fn count(&self) -> u32 {
        self.transient
    }

    fn on_permanent(&mut self) -> Duration {
        let pause = growing(self.permanent, MAX_PERMANENT_DELAY);
        self.permanent = self.permanent.saturating_add(1);
        pause
    }
}

/// The pause after so many earlier failures.
fn growing(failures: u32, max: Duration) -> Duration {
    FIRST_RETRY_DELAY.saturating_mul(2u32.saturating_pow(failures)).min(max)
}

#[cfg(test)]
mod tests {
    use artel_engine::LoadError;

    use super::*;

    fn transient() -> EngineUnavailable {
        EngineUnavailable::Load(LoadError::transient("killed"))
    }

    fn permanent() -> EngineUnavailable {
        EngineUnavailable::Load(LoadError::permanent("no such file"))
    }

    fn seconds(pause: Option<Duration>) -> Option<u64> {
        pause.map(|pause| pause.as_secs())
    }

    #[test]
    fn pauses_grow_to_their_bound() {
        let mut failures = LoadFailures::default();
        let pauses: Vec<_> = (0..11).map(|_| failures.on_placement_failed(&permanent()).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(failures.count(), 0, "it is not given up");
        failures.on_forced();
        assert_eq!(seconds(failures.on_load_failed(&permanent())), Some(1));
        failures.on_loaded();
        assert_eq!(seconds(failures.on_load_failed(&permanent())), Some(1));
        assert_eq!(seconds(failures.on_load_failed(&permanent())), Some(2));
        failures.reset();
        assert_eq!(failures.on_placement_failed(&permanent()), FIRST_RETRY_DELAY);
    }

    #[test]
    fn failures_that_may_pass_are_given_up_and_shortages_are_not() {
        let mut failures = LoadFailures::default();
        let pauses: Vec<_> = (0..6).map(|_| seconds(failures.on_load_failed(&transient()))).collect();
        assert_eq!(pauses, [Some(1), Some(2), Some(4), Some(8), None, None]);
        failures.on_forced();
        assert_eq!(failures.on_load_failed(&transient()), None, "it was tried once");
        assert!((0..20).all(|_| failures.on_placement_failed(&transient()) == FIRST_RETRY_DELAY));
        failures.reset();
        let none = BTreeSet::new();
        let exits: Vec<_> = (0..6).map(|_| failures.on_exited(false, &none)).collect();
        assert_eq!(exits[3..], [Some(Duration::ZERO), None, None]);
        assert_eq!(failures.on_exited(true, &none), Some(Duration::ZERO), "it had served well before");
    }

    #[test]
    fn the_exits_of_a_task_count_once_until_it_should_have_been_set_aside() {
        let task = |number: u8| BTreeSet::from([TaskId::from_bytes([number; 16])]);
        let mut failures = LoadFailures::default();
        for _ in 0..MAX_TASK_FAILURES {
            assert!((1..=4).all(|number| failures.on_exited(false, &task(number)).is_some()));
        }
        assert_eq!(failures.count(), 4);
        assert_eq!(failures.on_exited(false, &task(1)), None, "its task goes on after each exit");
        failures.reset();
        assert_eq!(
            (1..=5).filter_map(|number| failures.on_exited(false, &task(number))).count(),
            4,
            "whatever it computes"
        );
    }
}

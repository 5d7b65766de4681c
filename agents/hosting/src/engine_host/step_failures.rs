//! Steps that an engine fails one after the other.

/// Failures of the model in a row after which its engine is loaded anew. A step is tried three times by default: one step that
/// the model cannot do is no reason alone.
const MAX_STEP_FAILURES: u32 = 5;

/// What became of the work that was done under a lease.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LeaseOutcome {
    /// Nothing that tells about the engine: it was cancelled, or the request was at fault.
    #[default]
    Unknown,
    /// The engine ended meanwhile, which its host notices itself.
    Interrupted,
    /// The engine did what it was asked for.
    Served,
    /// The model failed, for this reason.
    Failed(String),
}

/// Counts the failures of an engine since it was loaded.
#[derive(Debug, Default)]
pub(super) struct StepFailures {
    in_a_row: u32,
    has_served: bool,
}

impl StepFailures {
    /// Takes in the outcome of a lease; the reason for which the engine is to be ended, if it has failed too often.
    pub(super) fn on_lease_ended(&mut self, outcome: LeaseOutcome) -> Option<String> {
        match outcome {
            LeaseOutcome::Unknown | LeaseOutcome::Interrupted => None,
            LeaseOutcome::Served => {
                (self.in_a_row, self.has_served) = (0, true);
                None
            }
            LeaseOutcome::Failed(reason) => {
                self.in_a_row += 1;
                let is_last = self.in_a_row == MAX_STEP_FAILURES;
                is_last
                    .then(|| format!("{MAX_STEP_FAILURES} steps in a row failed on it, the last one because {reason}"))
            }
        }
    }

    /// Whether it has done anything well.
    pub(super) fn has_served(&self) -> bool {
        self.has_served
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_while_nothing_succeeds_between_them() {
        let mut failures = StepFailures::default();
        let failed = || LeaseOutcome::Failed("the model failed: code -3".to_owned());
        assert!((0..4).all(|_| failures.on_lease_ended(failed()).is_none()));
        assert_eq!(failures.on_lease_ended(LeaseOutcome::Served), None);
        assert!((0..4).all(|_| failures.on_lease_ended(failed()).is_none()));
        assert_eq!(failures.on_lease_ended(LeaseOutcome::Unknown), None);
        let reason = failures.on_lease_ended(failed()).unwrap();
        assert_eq!(reason, "5 steps in a row failed on it, the last one because the model failed: code -3");
        assert_eq!(failures.on_lease_ended(failed()), None, "it is being ended already");
        assert!(failures.has_served());
    }
}

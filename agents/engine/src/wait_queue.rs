//! Sequences that wait for a slot: new ones, and preempted ones.

use std::time::{Duration, Instant};

use crate::backend::AdapterSet;
use crate::request::{Error, Priority};
use crate::schedule::{AGING_PERIOD, QueuedView};
use crate::sequence::{Job, Sequence};

/// A sequence that waits for a slot.
pub(crate) struct QueuedSequence<S> {
    pub(crate) adapters: AdapterSet,
    /// Its number among all arrivals.
    pub(crate) arrival: u64,
    pub(crate) state: QueuedState<S>,
}

pub(crate) enum QueuedState<S> {
    /// Nothing of it is computed.
    New(Box<Job>),
    /// It resumes where it stopped, once its cells are restored from these bytes.
    Preempted(Box<Sequence<S>>, Vec<u8>),
}

impl<S> QueuedSequence<S> {
    pub(crate) fn job(&self) -> &Job {
        match &self.state {
            QueuedState::New(job) => job,
            QueuedState::Preempted(sequence, _) => &sequence.job,
        }
    }

    pub(crate) fn is_new(&self) -> bool {
        matches!(self.state, QueuedState::New(_))
    }

    pub(crate) fn fail(self, error: Error) {
        match self.state {
            QueuedState::New(job) => job.fail(error),
            QueuedState::Preempted(sequence, _) => sequence.fail(error),
        }
    }

    /// The schedule's view of it.
    pub(crate) fn view(&self, served_tokens: u64, now: Instant) -> QueuedView {
        let job = self.job();
        QueuedView {
            aged_priority: aged_priority(job, now),
            served_tokens,
            remaining_steps: job.remaining_steps,
            arrival: self.arrival,
        }
    }
}

/// The priority of a job as a number, the lowest first, raised by its wait.
pub(crate) fn aged_priority(job: &Job, now: Instant) -> u32 {
    priority_after(job.priority, now.saturating_duration_since(job.since))
}

/// The priority as a number after a wait of this time. Prefetch and background prefill do not age: they can wait for ever.
pub(crate) fn priority_after(priority: Priority, waited: Duration) -> u32 {
    let periods = if priority.is_requested() { waited.as_secs() / AGING_PERIOD.as_secs() } else { 0 };
    (priority as u32).saturating_sub(u32::try_from(periods).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_gains_one_class_in_each_period_and_work_ahead_of_time_none() {
        let after = |priority, periods: u32| priority_after(priority, AGING_PERIOD * periods);
        let (batch, interactive) = (Priority::Batch, Priority::Interactive);
        assert_eq!(priority_after(batch, AGING_PERIOD - Duration::from_millis(1)), batch as u32);
        assert_eq!(after(batch, 1), interactive as u32);
        assert_eq!(after(batch, u32::MAX), 0);
        for ahead in [Priority::Prefetch, Priority::Background] {
            assert_eq!(after(ahead, u32::MAX), ahead as u32);
        }
    }
}

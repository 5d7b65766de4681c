//! Sequences that wait for a slot: new ones, and preempted ones.

use std::time::Duration;

use crate::backend::AdapterContext;
use crate::request::Error;
use crate::schedule::{AGING_PERIOD, QueuedView};
use crate::sequence::{Job, Sequence};

/// A sequence that waits for a slot.
pub(crate) struct QueuedSequence<S> {
    pub(crate) context: AdapterContext,
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
    pub(crate) fn view(&self, served_tokens: u64) -> QueuedView {
        let job = self.job();
        QueuedView {
            context: self.context,
            aged_priority: aged_priority(job),
            served_tokens,
            remaining_steps: job.remaining_steps,
            arrival: self.arrival,
        }
    }
}

/// Aging periods since a job arrived. Prefetch and background prefill do not age: they can wait for ever.
fn aging_periods(job: &Job) -> u32 {
    let periods = |age: Duration| age.as_secs() / AGING_PERIOD.as_secs();
    if job.priority.is_requested() { u32::try_from(periods(job.since.elapsed())).unwrap_or(u32::MAX) } else { 0 }
}

/// The priority of a job as a number, the lowest first, raised by its wait.
pub(crate) fn aged_priority(job: &Job) -> u32 {
    (job.priority as u32).saturating_sub(aging_periods(job))
}

//! Who waits for a seat: newcomers, and those who made room for somebody more urgent.

use std::time::Duration;

use crate::backend::Lane;
use crate::request::Error;
use crate::schedule::{AGEING, Waiting};
use crate::sequence::{Job, Sequence};

/// One who waits.
pub(crate) struct Waiter<S> {
    pub(crate) lane: Lane,
    /// Its place among all arrivals.
    pub(crate) arrival: u64,
    pub(crate) who: Who<S>,
}

pub(crate) enum Who<S> {
    /// Nothing of it is computed.
    New(Box<Job>),
    /// It goes on where it stopped, once its cells are brought back from these bytes.
    Paused(Box<Sequence<S>>, Vec<u8>),
}

impl<S> Waiter<S> {
    pub(crate) fn job(&self) -> &Job {
        match &self.who {
            Who::New(job) => job,
            Who::Paused(sequence, _) => &sequence.job,
        }
    }

    pub(crate) fn is_new(&self) -> bool {
        matches!(self.who, Who::New(_))
    }

    pub(crate) fn fail(self, error: Error) {
        match self.who {
            Who::New(job) => job.fail(error),
            Who::Paused(sequence, _) => sequence.fail(error),
        }
    }

    /// What the schedule sees; `served`: tokens that its flow was served.
    pub(crate) fn view(&self, served: u64) -> Waiting {
        let job = self.job();
        Waiting { lane: self.lane, urgency: urgency(job), served, left: job.left, arrival: self.arrival }
    }
}

/// How many ageing periods ago a job was asked for. What is done before it is needed can wait for ever.
fn periods(job: &Job) -> u32 {
    let periods = |since: Duration| since.as_secs() / AGEING.as_secs();
    if job.class.is_asked_for() { u32::try_from(periods(job.since.elapsed())).unwrap_or(u32::MAX) } else { 0 }
}

/// How urgent a job has become by waiting.
pub(crate) fn urgency(job: &Job) -> u32 {
    (job.class as u32).saturating_sub(periods(job))
}

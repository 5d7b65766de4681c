//! Tells an engine that hangs from one that is slow: a pure function of what is observed of it.
//!
//! Two clocks run. One counts the time without progress: the computing thread neither begins nor ends a piece of work. The
//! other counts the time without a sign of life: no progress, no CPU time, no page fault that waits for a disk, and no thread
//! that could run. A slow engine is alive, whatever slows it down (a large batch, a busy core, swapping), so that it gets long;
//! an engine that is stopped or deadlocked is silent, and gets the timeout of the settings. An engine that computes on a GPU or
//! on another machine may be silent while it waits for it; then the time that its batch is expected to take counts.

use std::fmt;
use std::time::Duration;

use artel_engine::{EngineActivity, Heartbeat};

use crate::process_sample::ProcessSample;

/// How much longer than expected a batch may take while its engine is silent. Twenty covers a device that others use too, and
/// the longer attention at the end of a context.
const SILENT_BATCH_FACTOR: u32 = 20;
/// The timeouts that a silent engine gets for work of unknown length on a GPU or another machine, such as a first batch.
const SILENT_UNKNOWN_FACTOR: u32 = 10;
/// The timeouts that an engine gets without progress while it is alive and does work of known length.
const STALLED_FACTOR: u32 = 10;
/// How much longer than expected a batch may take while its engine is alive.
const STALLED_BATCH_FACTOR: u32 = 200;
/// The same in timeouts, for work of unknown length: an hour by default. Loading a large model from a slow disk, or a first
/// batch of it on one busy core, may take that long; what burns CPU time for longer without any progress is a livelock.
const STALLED_UNKNOWN_FACTOR: u32 = 180;
/// CPU time that a process uses merely to be asked for its heartbeat, as a part of the time.
const MIN_ACTIVE_CPU_DIVISOR: u32 = 100;
/// CPU time below which its clock says nothing.
const MIN_ACTIVE_CPU_DURATION: Duration = Duration::from_millis(20);
/// The intervals between observations that are counted as one at most: if more time has passed, the daemon itself did not run.
const MAX_COUNTED_FACTOR: u32 = 2;

/// How long an engine may go without progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HangPolicy {
    /// The time without any sign of life after which an engine has ended for the daemon.
    pub timeout: Duration,
    /// Whether it computes on the CPU of this machine only, so that it uses CPU time whenever it computes.
    pub is_cpu_only: bool,
    /// The RPC servers, `host:port`, that it computes on.
    pub rpc_servers: Vec<String>,
}

/// [`HangPolicy::timeout`] unless the settings say otherwise. A step's idle limit is three times as long by default, so that its
/// engine is replaced before its attempts are used up.
pub const DEFAULT_HANG_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest time for which an engine without a sign of life keeps the CPU lease that others wait for. Far shorter than the
/// limits of their steps; to revoke it in error costs some speed and nothing else.
const MAX_SILENT_LEASE_DURATION: Duration = Duration::from_secs(5);
/// The same, as a part of the timeout.
const SILENT_LEASE_DIVISOR: u32 = 4;

impl HangPolicy {
    fn silent_lease_limit(&self) -> Duration {
        MAX_SILENT_LEASE_DURATION.min(self.timeout / SILENT_LEASE_DIVISOR)
    }

    /// How long an engine may be silent while it does this.
    fn silent_limit(&self, activity: EngineActivity, is_stopped: bool) -> Duration {
        match activity {
            EngineActivity::Computes { expected } if !self.is_cpu_only && !is_stopped => match expected {
                Some(expected) => self.timeout.max(expected.saturating_mul(SILENT_BATCH_FACTOR)),
                None => self.timeout.saturating_mul(SILENT_UNKNOWN_FACTOR),
            },
            _ => self.timeout,
        }
    }

    /// How long an engine may make no progress while it does this and is alive.
    fn stalled_limit(&self, activity: EngineActivity) -> Duration {
        match activity {
            EngineActivity::Computes { expected: Some(expected) } => {
                self.timeout.saturating_mul(STALLED_FACTOR).max(expected.saturating_mul(STALLED_BATCH_FACTOR))
            }
            _ => self.timeout.saturating_mul(STALLED_UNKNOWN_FACTOR),
        }
    }
}

/// What is observed of an engine at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EngineObservation {
    /// The time since the observation before it.
    pub(crate) elapsed: Duration,
    /// The usual time between two observations.
    pub(crate) interval: Duration,
    /// The answer of its process, if one came since the observation before.
    pub(crate) heartbeat: Option<Heartbeat>,
    /// What the kernel tells about the process, if it does.
    pub(crate) process: Option<ProcessSample>,
}

/// What follows from the observations so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EngineCondition {
    /// It makes progress, or is slow.
    Alive,
    /// It has shown no sign of life for a while: nothing that others need may depend on it.
    Silent,
    /// It will not continue.
    Hung(HangReason),
}

/// Why an engine counts as hung.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HangReason {
    /// The time without progress.
    stalled: Duration,
    is_stopped: bool,
    /// Whether it showed no sign of life either.
    is_silent: bool,
    /// How long its batch should have taken, if that is known.
    expected: Option<Duration>,
    rpc_servers: Vec<String>,
}

impl fmt::Display for HangReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hung: no progress for {} s", self.stalled.as_secs())?;
        match (self.is_stopped, self.is_silent) {
            (true, _) => f.write_str(", its process was stopped")?,
            (false, true) => f.write_str(", and its process did nothing")?,
            (false, false) => f.write_str(", although its process was busy")?,
        }
        if let Some(expected) = self.expected {
            write!(f, "; its batch was expected to take {:.1} s", expected.as_secs_f64())?;
        }
        if !self.rpc_servers.is_empty() && !self.is_stopped {
            write!(f, "; it may have waited for the RPC server {}", self.rpc_servers.join(" or "))?;
        }
        Ok(())
    }
}

/// Decides from a sequence of observations whether an engine hangs.
#[derive(Debug)]
pub(crate) struct HangDetector {
    policy: HangPolicy,
    /// The last answer.
    heartbeat: Option<Heartbeat>,
    /// The process at the last sign of life.
    process: Option<ProcessSample>,
    /// The time since the last progress.
    stalled: Duration,
    /// The time since the last sign of life.
    silent: Duration,
}

impl HangDetector {
    pub(crate) fn new(policy: HangPolicy) -> Self {
        Self { policy, heartbeat: None, process: None, stalled: Duration::ZERO, silent: Duration::ZERO }
    }

    /// Takes in an observation.
    pub(crate) fn observe(&mut self, observation: &EngineObservation) -> EngineCondition {
        let counted = observation.elapsed.min(observation.interval.saturating_mul(MAX_COUNTED_FACTOR));
        self.stalled = self.stalled.saturating_add(counted);
        self.silent = self.silent.saturating_add(counted);
        if self.shows_progress(observation) {
            (self.stalled, self.silent) = (Duration::ZERO, Duration::ZERO);
            self.process = observation.process;
        } else if self.shows_life(observation) {
            self.silent = Duration::ZERO;
            self.process = observation.process;
        }
        self.heartbeat = observation.heartbeat.or(self.heartbeat);
        self.condition(observation.process.is_some_and(|process| process.is_stopped))
    }

    /// Whether the computing thread has begun or ended a piece of work, or has nothing to do.
    fn shows_progress(&self, observation: &EngineObservation) -> bool {
        observation.heartbeat.is_some_and(|heartbeat| {
            let has_work = matches!(heartbeat.activity, EngineActivity::Computes { .. });
            !has_work || self.heartbeat.is_none_or(|last| last.beats != heartbeat.beats)
        })
    }

    /// Whether the process does anything at all, since the last sign of life.
    fn shows_life(&self, observation: &EngineObservation) -> bool {
        let is_answered = observation.heartbeat.is_some();
        // Without `/proc`, an answer is all that tells it from a process that is stopped.
        let Some(now) = observation.process else { return is_answered };
        if now.is_stopped {
            return false;
        }
        let Some(last) = self.process else { return true };
        let used = now.cpu_time.saturating_sub(last.cpu_time);
        let idle_use = MIN_ACTIVE_CPU_DURATION.saturating_add(self.silent / MIN_ACTIVE_CPU_DIVISOR);
        // A main thread that has just answered is active for that reason.
        let is_active = now.is_worker_active || (now.is_main_thread_active && !is_answered);
        used >= idle_use || now.major_faults > last.major_faults || is_active
    }

    fn condition(&self, is_stopped: bool) -> EngineCondition {
        let activity = self.heartbeat.map_or(EngineActivity::Computes { expected: None }, |last| last.activity);
        let is_silent = self.silent >= self.policy.silent_limit(activity, is_stopped);
        if is_silent || self.stalled >= self.policy.stalled_limit(activity) {
            let expected = match activity {
                EngineActivity::Computes { expected } => expected,
                EngineActivity::Idle | EngineActivity::AwaitsCpu => None,
            };
            let (stalled, rpc_servers) = (self.stalled, self.policy.rpc_servers.clone());
            return EngineCondition::Hung(HangReason { stalled, is_stopped, is_silent, expected, rpc_servers });
        }
        match self.silent >= self.policy.silent_lease_limit() {
            true => EngineCondition::Silent,
            false => EngineCondition::Alive,
        }
    }
}

#[cfg(test)]
mod tests;

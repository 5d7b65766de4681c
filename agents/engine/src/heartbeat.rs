//! The heartbeat of an engine: what its computing thread does, as that thread itself records it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The state of the computing thread at its last change. A thread that hangs records nothing, so that the number of beats stays
/// as it is, whatever the other threads of the process do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heartbeat {
    /// Counts the pieces of work that were begun and ended.
    pub beats: u64,
    /// What the thread does since the last beat.
    pub activity: EngineActivity,
}

/// What the computing thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineActivity {
    /// It waits for requests, or for readers of what it has computed.
    #[default]
    Idle,
    /// It waits for the cores that engines share.
    AwaitsCpu,
    /// It computes.
    Computes {
        /// How long the piece of work is expected to take, from those before it; unknown for a first batch and for work that
        /// is no batch.
        expected: Option<Duration>,
    },
}

/// The heartbeat as the thread records it. Every lock is held for a copy of the value only.
#[derive(Debug, Default)]
pub(crate) struct HeartbeatRecorder(Mutex<Heartbeat>);

impl HeartbeatRecorder {
    /// Records that a piece of work begins, and that the one before it has ended.
    pub(crate) fn record(&self, activity: EngineActivity) {
        let mut heartbeat = self.lock();
        *heartbeat = Heartbeat { beats: heartbeat.beats.wrapping_add(1), activity };
    }

    /// The last record.
    pub(crate) fn last(&self) -> Heartbeat {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Heartbeat> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_of_work_is_a_beat() {
        let recorder = HeartbeatRecorder::default();
        assert_eq!(recorder.last(), Heartbeat { beats: 0, activity: EngineActivity::Idle });
        recorder.record(EngineActivity::AwaitsCpu);
        let computes = EngineActivity::Computes { expected: Some(Duration::from_millis(3)) };
        recorder.record(computes);
        assert_eq!(recorder.last(), Heartbeat { beats: 2, activity: computes });
    }
}

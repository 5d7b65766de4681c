//! The time of one run of a task.

use artel_task::Clock;
use artel_task::event::Timestamp;
use tokio::time::Instant;

/// The times of a task's events, from which its limits and its pauses are computed: the wall time at which the run began,
/// carried on by the monotonic clock. So a wall clock that is set back or forward meanwhile changes no limit and no pause, and
/// the times of a task's events never go back.
#[derive(Debug)]
pub(super) struct RunClock {
    wall: Clock,
    start: Timestamp,
    started: Instant,
}

impl RunClock {
    /// Begins at the wall time, but not before the task's last event: the clock may have been set back since.
    pub(super) fn new(wall: Clock, last_event: Timestamp) -> Self {
        let start = wall.now().max(last_event);
        Self { wall, start, started: Instant::now() }
    }

    /// The time of an event that is recorded now.
    pub(super) fn now(&self) -> Timestamp {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.start.0.saturating_add(elapsed))
    }

    /// The time of the task's last event: people read it, and retention counts from it, so it is the wall time unless that
    /// was set back.
    pub(super) fn end(&self) -> Timestamp {
        self.wall.now().max(self.now())
    }

    /// Catches up with a wall clock that is ahead, for example after the machine was suspended. Only for a task that waits
    /// for answers of people alone: that time counts against no limit.
    pub(super) fn catch_up(&mut self) {
        let (wall, now) = (self.wall.now(), self.now());
        if wall > now {
            (self.start, self.started) = (wall, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_is_set_changes_no_time_within_a_run() {
        let wall_ms = Arc::new(AtomicU64::new(10 * HOUR_MS));
        let clock = Clock::new({
            let wall_ms = wall_ms.clone();
            move || Timestamp(wall_ms.load(Ordering::SeqCst))
        });
        let mut run = RunClock::new(clock.clone(), Timestamp(HOUR_MS));
        assert_eq!(run.now(), Timestamp(10 * HOUR_MS));
        for (hours, elapsed_ms) in [(9, 1_500), (12, 3_000)] {
            wall_ms.store(hours * HOUR_MS, Ordering::SeqCst);
            tokio::time::advance(Duration::from_millis(1_500)).await;
            assert_eq!(run.now(), Timestamp(10 * HOUR_MS + elapsed_ms));
        }
        wall_ms.store(9 * HOUR_MS, Ordering::SeqCst);
        run.catch_up();
        assert_eq!(run.now(), Timestamp(10 * HOUR_MS + 3_000), "an earlier wall time is not taken over");
        wall_ms.store(12 * HOUR_MS, Ordering::SeqCst);
        run.catch_up();
        assert_eq!(run.now(), Timestamp(12 * HOUR_MS));
        let resumed = RunClock::new(clock, Timestamp(15 * HOUR_MS));
        assert_eq!(resumed.now(), Timestamp(15 * HOUR_MS), "its last event is later than the wall time");
    }
}

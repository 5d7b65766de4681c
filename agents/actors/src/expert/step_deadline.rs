//! The timeout of a step, with the waits that do not count toward it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::commit_barrier::CommitBarrier;

/// The rest of a step's timeout. It covers the step's own work and its wait in the role's queue. The clock pauses until the
/// step's start is committed, and while the model is downloaded or waits for memory and no step of the role can run; the latter
/// for all steps in that queue.
#[derive(Debug)]
pub(super) struct StepDeadline {
    remaining: Duration,
    barrier: CommitBarrier,
}

/// Counts the steps of a role that have a permit and wait for the model. Clones share the count.
#[derive(Debug, Clone, Default)]
pub(super) struct ModelWaitCounter(watch::Sender<u32>);

/// One counted step; dropping it ends its wait.
#[derive(Debug)]
pub(super) struct ModelWait(ModelWaitCounter);

impl ModelWaitCounter {
    pub(super) fn begin(&self) -> ModelWait {
        self.0.send_modify(|count| *count += 1);
        ModelWait(self.clone())
    }
}

impl Drop for ModelWait {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

impl StepDeadline {
    pub(super) fn new(timeout: Duration, barrier: CommitBarrier) -> Self {
        Self { remaining: timeout, barrier }
    }

    /// Runs `ready`, the wait for everything that the work needs, and pauses while any step of the role waits for the model;
    /// `None` if the time is over first.
    pub(super) async fn run_pausing<T>(
        &mut self,
        model_waits: &ModelWaitCounter,
        ready: impl Future<Output = T>,
    ) -> Option<T> {
        let mut count = model_waits.0.subscribe();
        tokio::pin!(ready);
        loop {
            tokio::select! {
                biased;
                value = &mut ready => return Some(value),
                () = until(&mut count, |count| count == 0) => {}
            }
            let since = Instant::now();
            let value = tokio::select! {
                biased;
                value = &mut ready => Some(value),
                () = until(&mut count, |count| count > 0) => None,
                () = self.expired() => return None,
            };
            let counted = self.barrier.since_commit().unwrap_or_default().min(since.elapsed());
            self.remaining = self.remaining.saturating_sub(counted);
            if value.is_some() {
                return value;
            }
        }
    }

    /// Runs the work itself; `None` if the time is over first.
    pub(super) async fn run<T>(self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            value = work => Some(value),
            () = self.expired() => None,
        }
    }

    async fn expired(&self) {
        self.barrier.committed().await;
        sleep(self.remaining).await;
    }
}

async fn until(count: &mut watch::Receiver<u32>, holds: impl Fn(u32) -> bool) {
    // It cannot close: every caller holds a sender too.
    let _ = count.wait_for(|count| holds(*count)).await;
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::Instant;

    use super::*;

    use crate::commit_barrier::CommitNotifier;

    const SECOND: Duration = Duration::from_secs(1);

    fn minute() -> StepDeadline {
        StepDeadline::new(60 * SECOND, CommitBarrier::already_committed())
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_pauses_while_the_model_is_loaded() {
        let (model_waits, mut deadline) = (ModelWaitCounter::default(), minute());
        let (first, second) = (model_waits.begin(), model_waits.begin());
        let loading = async {
            sleep(3600 * SECOND).await;
            drop(first);
            sleep(3600 * SECOND).await;
            drop(second);
            // The rest of the wait in the queue.
            sleep(20 * SECOND).await;
        };
        assert!(deadline.run_pausing(&model_waits, loading).await.is_some());
        let started = Instant::now();
        assert!(deadline.run(pending::<()>()).await.is_none());
        assert_eq!(started.elapsed().as_secs(), 40, "the wait in the queue counts");
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_runs_while_no_step_waits_for_a_model() {
        let (model_waits, started) = (ModelWaitCounter::default(), Instant::now());
        let mut deadline = minute();
        let later = async {
            sleep(30 * SECOND).await;
            let wait = model_waits.begin();
            sleep(100 * SECOND).await;
            drop(wait);
            pending::<()>().await;
        };
        assert!(deadline.run_pausing(&model_waits, later).await.is_none());
        assert_eq!(started.elapsed().as_secs(), 160);
        assert!(minute().run_pausing(&model_waits, ready(())).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_starts_when_the_start_of_the_step_is_committed() {
        let ((notifier, barrier), model_waits) = (CommitNotifier::new(), ModelWaitCounter::default());
        let mut deadline = StepDeadline::new(60 * SECOND, barrier);
        let slow = async {
            sleep(100 * SECOND).await;
            notifier.notify();
            sleep(20 * SECOND).await;
        };
        assert!(deadline.run_pausing(&model_waits, slow).await.is_some());
        let started = Instant::now();
        assert!(deadline.run(pending::<()>()).await.is_none());
        assert_eq!(started.elapsed().as_secs(), 40);
    }
}

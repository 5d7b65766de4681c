//! Whether the start of steps is on disk. A step may be computed before, but nothing of it is published.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Opens the barrier of the steps that start with one commit. Dropped without [`notify`](Self::notify), they never started.
#[derive(Debug)]
pub(crate) struct CommitNotifier(watch::Sender<Option<Instant>>);

/// Tells a step whether its start is committed. Clones are the same barrier.
#[derive(Debug, Clone)]
pub(crate) struct CommitBarrier(watch::Receiver<Option<Instant>>);

impl CommitNotifier {
    pub(crate) fn new() -> (Self, CommitBarrier) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), CommitBarrier(receiver))
    }

    /// The start is on disk and published.
    pub(crate) fn notify(&self) {
        self.0.send_replace(Some(Instant::now()));
    }
}

impl CommitBarrier {
    /// The barrier of a step whose start is on disk already.
    pub(crate) fn already_committed() -> Self {
        Self(watch::channel(Some(Instant::now())).1)
    }

    /// The time since the commit; none before it.
    pub(crate) fn since_commit(&self) -> Option<Duration> {
        self.0.borrow().map(|at| at.elapsed())
    }

    /// Resolves when the step may publish: never if its start was not committed, since then it is cancelled.
    pub(crate) async fn committed(&self) {
        if self.0.clone().wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_barrier_opens_once_the_start_is_on_disk_and_never_else() {
        let (notifier, barrier) = CommitNotifier::new();
        assert!(barrier.committed().now_or_never().is_none() && barrier.since_commit().is_none());
        notifier.notify();
        drop(notifier);
        assert!(barrier.committed().now_or_never().is_some() && barrier.since_commit().is_some());
        let (lost, barrier) = CommitNotifier::new();
        drop(lost);
        assert!(barrier.committed().now_or_never().is_none());
        assert!(CommitBarrier::already_committed().committed().now_or_never().is_some());
    }
}

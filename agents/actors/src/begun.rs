//! Whether the beginning of steps is on disk. They may work before, but nobody hears of them.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The steps that begin with one commit. Dropped without a word, they never began.
#[derive(Debug)]
pub(crate) struct Beginning(watch::Sender<Option<Instant>>);

/// What one of them knows. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Begun(watch::Receiver<Option<Instant>>);

impl Beginning {
    pub(crate) fn new() -> (Self, Begun) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), Begun(receiver))
    }

    /// It is on disk and announced.
    pub(crate) fn is_heard_of(&self) {
        self.0.send_replace(Some(Instant::now()));
    }
}

impl Begun {
    /// Of a step whose beginning has been on disk before.
    pub(crate) fn before() -> Self {
        Self(watch::channel(Some(Instant::now())).1)
    }

    /// Since when others may hear of the step; none if not yet.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.0.borrow().map(|at| at.elapsed())
    }

    /// Resolves when others may hear of the step: never if it did not begin, since then it is cancelled.
    pub(crate) async fn heard_of(&self) {
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
    async fn a_step_is_heard_of_once_its_beginning_is_on_disk_and_never_else() {
        let (beginning, begun) = Beginning::new();
        assert!(begun.heard_of().now_or_never().is_none() && begun.age().is_none());
        beginning.is_heard_of();
        drop(beginning);
        assert!(begun.heard_of().now_or_never().is_some() && begun.age().is_some());
        let (lost, begun) = Beginning::new();
        drop(lost);
        assert!(begun.heard_of().now_or_never().is_none());
        assert!(Begun::before().heard_of().now_or_never().is_some());
    }
}

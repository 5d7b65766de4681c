//! The time that a step has.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::begun::Begun;

/// What is left of a step's timeout. It is meant for the step's own work and for its wait in the role's line: until its beginning
/// is on disk, and while the model is fetched or waits for room and nobody can work, the clock stands still, the latter for
/// all who are in that line.
#[derive(Debug)]
pub(super) struct Allowance {
    left: Duration,
    begun: Begun,
}

/// Steps of a role that have their place and wait for the model. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Loading(watch::Sender<u32>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Waits(Loading);

impl Loading {
    pub(super) fn begin(&self) -> Waits {
        self.0.send_modify(|count| *count += 1);
        Waits(self.clone())
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

impl Allowance {
    pub(super) fn new(timeout: Duration, begun: Begun) -> Self {
        Self { left: timeout, begun }
    }

    /// What must be there before the work begins; none if the time is over first.
    pub(super) async fn before<T>(&mut self, loading: &Loading, ready: impl Future<Output = T>) -> Option<T> {
        let mut count = loading.0.subscribe();
        tokio::pin!(ready);
        loop {
            tokio::select! {
                biased;
                it = &mut ready => return Some(it),
                () = until(&mut count, |count| count == 0) => {}
            }
            let since = Instant::now();
            let it = tokio::select! {
                biased;
                it = &mut ready => Some(it),
                () = until(&mut count, |count| count > 0) => None,
                () = self.over() => return None,
            };
            self.left = self.left.saturating_sub(self.begun.age().unwrap_or_default().min(since.elapsed()));
            if it.is_some() {
                return it;
            }
        }
    }

    /// The work itself; none if the time is over first.
    pub(super) async fn during<T>(self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            it = work => Some(it),
            () = self.over() => None,
        }
    }

    async fn over(&self) {
        self.begun.heard_of().await;
        sleep(self.left).await;
    }
}

async fn until(count: &mut watch::Receiver<u32>, holds: impl Fn(u32) -> bool) {
    // Whoever waits has the other end too.
    let _ = count.wait_for(|count| holds(*count)).await;
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    use crate::begun::Beginning;

    const SECOND: Duration = Duration::from_secs(1);

    fn minute() -> Allowance {
        Allowance::new(60 * SECOND, Begun::before())
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_stands_still_while_the_model_comes() {
        let (loading, mut allowance) = (Loading::default(), minute());
        let (first, second) = (loading.begin(), loading.begin());
        let coming = async {
            sleep(3600 * SECOND).await;
            drop(first);
            sleep(3600 * SECOND).await;
            drop(second);
            // What is left of the line.
            sleep(20 * SECOND).await;
        };
        assert!(allowance.before(&loading, coming).await.is_some());
        let began = Instant::now();
        assert!(allowance.during(pending::<()>()).await.is_none());
        assert_eq!(began.elapsed().as_secs(), 40, "the wait in the line counts");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_goes_on_where_nobody_waits_for_a_model() {
        let (loading, began) = (Loading::default(), Instant::now());
        let mut allowance = minute();
        let later = async {
            sleep(30 * SECOND).await;
            let waits = loading.begin();
            sleep(100 * SECOND).await;
            drop(waits);
            pending::<()>().await;
        };
        assert!(allowance.before(&loading, later).await.is_none());
        assert_eq!(began.elapsed().as_secs(), 160);
        assert!(minute().before(&loading, ready(())).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_begins_when_the_beginning_is_on_disk() {
        let ((beginning, begun), loading) = (Beginning::new(), Loading::default());
        let mut allowance = Allowance::new(60 * SECOND, begun);
        let slow = async {
            sleep(100 * SECOND).await;
            beginning.is_heard_of();
            sleep(20 * SECOND).await;
        };
        assert!(allowance.before(&loading, slow).await.is_some());
        let began = Instant::now();
        assert!(allowance.during(pending::<()>()).await.is_none());
        assert_eq!(began.elapsed().as_secs(), 40);
    }
}

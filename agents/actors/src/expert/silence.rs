//! How long nothing has come.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// A silence, which is over when it has lasted for too long. Its timer is set when it fires, not for each token that comes.
#[derive(Debug)]
pub(super) struct Silence {
    since: Instant,
    limit: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Silence {
    /// One that begins now and may last so long.
    pub(super) fn of(limit: Duration) -> Self {
        Self { since: Instant::now(), limit, timer: Box::pin(sleep(limit)) }
    }

    /// Something came: another one begins, which may last so long.
    pub(super) fn ends(&mut self, limit: Duration) {
        self.since = Instant::now();
        if limit != self.limit {
            self.limit = limit;
            self.timer.set(sleep(limit));
        }
    }

    /// Resolves with the limit when it has lasted for too long. May be dropped and called again.
    pub(super) async fn over(&mut self) -> Duration {
        loop {
            self.timer.as_mut().await;
            let left = self.limit.saturating_sub(self.since.elapsed());
            if left.is_zero() {
                return self.limit;
            }
            self.timer.set(sleep(left));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_measured_from_what_came_last() {
        let second = Duration::from_secs(1);
        let (began, mut silence) = (Instant::now(), Silence::of(10 * second));
        sleep(9 * second).await;
        silence.ends(2 * second);
        for _ in 0..3 {
            tokio::time::timeout(second, silence.over()).await.unwrap_err();
            silence.ends(2 * second);
        }
        assert_eq!(silence.over().await, 2 * second);
        assert_eq!((Instant::now() - began).as_secs(), 9 + 3 + 2);
    }
}

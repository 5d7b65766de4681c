//! The longest time without a token.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Expires when no token has arrived for a limit. The timer is rearmed when it fires, not for each token.
#[derive(Debug)]
pub(super) struct IdleTimeout {
    last_activity: Instant,
    limit: Duration,
    timer: Pin<Box<Sleep>>,
}

impl IdleTimeout {
    /// Starts now.
    pub(super) fn new(limit: Duration) -> Self {
        Self { last_activity: Instant::now(), limit, timer: Box::pin(sleep(limit)) }
    }

    /// Starts anew after activity, with this limit.
    pub(super) fn reset(&mut self, limit: Duration) {
        self.last_activity = Instant::now();
        if limit != self.limit {
            self.limit = limit;
            self.timer.set(sleep(limit));
        }
    }

    /// Resolves with the limit once it has passed without activity. Cancel safe: may be dropped and called again.
    pub(super) async fn expired(&mut self) -> Duration {
        loop {
            self.timer.as_mut().await;
            let remaining = self.limit.saturating_sub(self.last_activity.elapsed());
            if remaining.is_zero() {
                return self.limit;
            }
            self.timer.set(sleep(remaining));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_measured_from_the_last_activity() {
        let second = Duration::from_secs(1);
        let (started, mut timeout) = (Instant::now(), IdleTimeout::new(10 * second));
        sleep(9 * second).await;
        timeout.reset(2 * second);
        for _ in 0..3 {
            tokio::time::timeout(second, timeout.expired()).await.unwrap_err();
            timeout.reset(2 * second);
        }
        assert_eq!(timeout.expired().await, 2 * second);
        assert_eq!((Instant::now() - started).as_secs(), 9 + 3 + 2);
    }
}

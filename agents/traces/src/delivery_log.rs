//! The lines of the log about the delivery of spans: few, however long a collector is gone.

use std::time::Duration;

use tokio::time::Instant;

/// The time between two lines about a collector that takes no spans.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Logs when spans are not delivered, once in a while, and when they are again.
#[derive(Debug, Default)]
pub(crate) struct DeliveryLog {
    logged_at: Option<Instant>,
    is_failing: bool,
}

impl DeliveryLog {
    /// Spans could not be delivered. Whether that was logged.
    pub(crate) fn failed(&mut self, reason: &str, waiting: usize, dropped: u64) -> bool {
        if self.logged_at.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            return false;
        }
        (self.logged_at, self.is_failing) = (Some(Instant::now()), true);
        tracing::warn!(
            reason,
            waiting,
            dropped,
            "spans are not delivered to the collector of `traces`; tasks go on without"
        );
        true
    }

    /// Spans were delivered. Whether that was logged.
    pub(crate) fn delivered(&mut self, dropped: u64) -> bool {
        let was_failing = std::mem::take(&mut self.is_failing);
        if was_failing {
            tracing::info!(dropped, "spans are delivered to the collector again");
        }
        was_failing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_absent_collector_is_logged_once_a_minute_and_once_when_it_is_back() {
        let mut log = DeliveryLog::default();
        assert!(!log.delivered(0));
        assert!(log.failed("refused", 1, 0) && !log.failed("refused", 2, 0));
        assert!(log.delivered(0) && !log.delivered(0));
        assert!(!log.failed("refused", 1, 0) && !log.delivered(0), "it comes and goes");
        tokio::time::advance(LOG_INTERVAL).await;
        assert!(log.failed("refused", 1, 7));
    }
}

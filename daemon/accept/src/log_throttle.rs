//! One line of the log for many events.

use std::time::Duration;

use tokio::time::Instant;

/// How often a line is logged while events go on.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Counts events, and says when to log them: at once for the first one, then so many in a line each minute.
#[derive(Debug, Default)]
pub struct LogThrottle {
    last: Option<Instant>,
    /// Events that are not logged yet.
    events: u64,
}

impl LogThrottle {
    /// Whether no line was logged for so long that the next event is one.
    pub fn is_idle(&self) -> bool {
        self.last.is_none_or(|last| last.elapsed() >= LOG_INTERVAL)
    }

    /// The number of events that are not logged yet, if it is time to log them.
    pub fn take_pending(&mut self) -> Option<u64> {
        if self.events == 0 || !self.is_idle() {
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.events))
    }

    /// Counts an event; the number of events to log now, if it is time.
    pub fn count(&mut self) -> Option<u64> {
        self.events += 1;
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) < LOG_INTERVAL) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_events_are_one_line_a_minute() {
        let mut throttle = LogThrottle::default();
        let lines: Vec<u64> = (0..1000).filter_map(|_| throttle.count()).collect();
        assert_eq!(lines, [1]);
        tokio::time::advance(LOG_INTERVAL).await;
        let lines: Vec<u64> = (0..1000).filter_map(|_| throttle.count()).collect();
        assert_eq!(lines, [1000]);
        assert_eq!(throttle.take_pending(), None);
        tokio::time::advance(LOG_INTERVAL).await;
        assert_eq!((throttle.take_pending(), throttle.take_pending()), (Some(999), None));
    }
}

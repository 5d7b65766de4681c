//! The time that checking a client's documents may take: each part of a catalog is bounded, and a request has room for thousands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The end of a check, by its time or because no client waits for it any more. Clones share it.
#[derive(Debug, Clone)]
pub struct CheckDeadline {
    end: Instant,
    timeout: Duration,
    is_cancelled: Arc<AtomicBool>,
}

/// Ends a check when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct CheckCancellation(Arc<AtomicBool>);

impl CheckDeadline {
    /// A deadline from now on.
    pub fn after(timeout: Duration) -> Self {
        Self { end: Instant::now() + timeout, timeout, is_cancelled: Arc::default() }
    }

    /// Ends the check when the returned value is dropped.
    pub fn cancel_on_drop(&self) -> CheckCancellation {
        CheckCancellation(self.is_cancelled.clone())
    }

    /// The time that the check may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The time that is left.
    pub fn time_left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Whether the check must end.
    pub fn is_over(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed) || Instant::now() >= self.end
    }
}

impl Drop for CheckCancellation {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_over_with_its_time_or_its_client() {
        assert!(CheckDeadline::after(Duration::ZERO).is_over());
        let deadline = CheckDeadline::after(Duration::from_secs(3600));
        let cancellation = deadline.cancel_on_drop();
        assert!(!deadline.is_over());
        drop(cancellation);
        assert!(deadline.is_over());
    }
}

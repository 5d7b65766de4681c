//! Time: the one that people read, and the one that limits and pauses are measured with.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use artel_task::event::Timestamp;
use tokio::time::Instant;

/// The only source of time in this crate.
///
/// Wall time is what people read: the times of events and reports, and the deadlines of questions, which also hold after a
/// restart. It may be set back or forward at any moment. Limits, pauses and ages are measured with the monotonic clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock whose wall time is the result of this function.
    pub fn new(wall: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(wall))
    }

    /// The wall time.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }

    /// The wall time as the standard library represents it, for reports.
    pub(crate) fn system_time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.now().0)
    }

    /// The monotonic time: that of tokio, which tests pause.
    pub(crate) fn monotonic() -> Instant {
        Instant::now()
    }
}

impl Default for Clock {
    /// The system's clock.
    fn default() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        })
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({})", self.now().0)
    }
}

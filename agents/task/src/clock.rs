//! The wall time, as a parameter.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::event::Timestamp;

/// The source of wall time.
///
/// Wall time is what people read: the times of events and reports, the deadlines of questions, and the ages of retention, which
/// also hold after a restart. It may be set back or forward at any moment. Limits, pauses and ages within a run are measured
/// with the monotonic clock of tokio, which tests pause.
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
    pub fn system_time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.now().0)
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

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now().0)
    }
}

//! When a task runner decides again.

use std::time::Duration;

use ractor::ActorRef;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::message::Message;

/// The times of events, from which limits are computed, are whole milliseconds.
const CLOCK_TICK_PERIOD: Duration = Duration::from_millis(1);

/// Wakes the task runner once. Dropping it cancels that.
pub(super) struct WakeTimer {
    due: Instant,
    _send: AbortOnDropHandle<Result<(), ractor::MessagingErr<Message>>>,
}

impl WakeTimer {
    pub(super) fn new(runner: &ActorRef<Message>, after: Duration, due: Instant) -> Self {
        Self { due, _send: AbortOnDropHandle::new(runner.send_after(after, || Message::Wake)) }
    }

    /// Whether it can stand in for a timer that is due then: waking too early only means deciding once more.
    pub(super) fn covers(&self, due: Instant) -> bool {
        self.due <= due + CLOCK_TICK_PERIOD
    }
}

//! When a conductor looks again.

use std::time::Duration;

use ractor::ActorRef;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::Message;

/// The times of day, from which limits are reckoned, are whole milliseconds.
const GRAIN: Duration = Duration::from_millis(1);

/// A word to the conductor, once. Dropping it takes it back.
pub(super) struct Timer {
    due: Instant,
    _sends: AbortOnDropHandle<Result<(), ractor::MessagingErr<Message>>>,
}

impl Timer {
    pub(super) fn new(conductor: &ActorRef<Message>, after: Duration, due: Instant) -> Self {
        Self { due, _sends: AbortOnDropHandle::new(conductor.send_after(after, || Message::Due)) }
    }

    /// Whether it is as good as one that is due then: looking too early only means to look once more.
    pub(super) fn serves(&self, due: Instant) -> bool {
        self.due <= due + GRAIN
    }
}

//! How long an engine that nothing uses stays loaded.

use std::time::Duration;

use artel_model::KeepLoaded;
use ractor::ActorRef;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::message::Message;

/// The time after which a model that nothing uses is unloaded; none if it stays until another one needs its memory, or for ever.
pub(super) fn keep_time(keep: KeepLoaded) -> Option<Duration> {
    if let KeepLoaded::For(time) = keep { Some(time) } else { None }
}

/// After how much more time an engine that has been idle for so long is unloaded.
pub(super) fn unloads_after(keep: KeepLoaded, idle: Option<Duration>) -> Option<Duration> {
    Some(keep_time(keep)?.saturating_sub(idle?))
}

/// Asks the host whether the engine of this generation has been idle for long enough, once that may be: it has been since this time. None
/// for a model that is not kept for a time.
pub(super) fn start(
    me: &ActorRef<Message>,
    generation: u64,
    keep: KeepLoaded,
    since: Instant,
) -> Option<AbortOnDropHandle<()>> {
    let (me, at) = (me.clone(), since + keep_time(keep)?);
    Some(AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::time::sleep_until(at).await;
        // A host that has stopped has dropped the engine.
        let _ = me.cast(Message::IdleTimeOver(generation));
    })))
}

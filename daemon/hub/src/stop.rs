//! Stops all downloads; threads can wait for it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Whether downloads must stop. Clones share the state.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopToken(Arc<(Mutex<bool>, Condvar)>);

/// Stops all downloads when dropped.
#[derive(Debug, Default)]
pub(crate) struct StopOnDrop(StopToken);

impl StopOnDrop {
    /// The token that downloads wait for.
    pub(crate) fn token(&self) -> StopToken {
        self.0.clone()
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        *self.0.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.0.1.notify_all();
    }
}

impl StopToken {
    /// Waits until downloads must stop, or until the timeout. Returns whether they must stop.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let stopped = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(stopped, timeout, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_threads_wake_at_once_on_drop() {
        let owner = StopOnDrop::default();
        let stop = owner.token();
        assert!(!stop.wait(Duration::ZERO));
        let waiting = std::thread::spawn({
            let stop = stop.clone();
            move || stop.wait(Duration::MAX)
        });
        drop(owner);
        assert!(waiting.join().unwrap() && stop.wait(Duration::ZERO));
    }
}

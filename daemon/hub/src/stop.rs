//! Stops all downloads; threads can wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Whether downloads must stop: all of them, or those of a group. Clones share the state.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopToken {
    all: Arc<(Mutex<bool>, Condvar)>,
    /// Changed only while the mutex is locked, so that no thread begins to wait in between.
    group: Arc<AtomicBool>,
}

/// Stops all downloads when dropped.
#[derive(Debug, Default)]
pub(crate) struct StopOnDrop(StopToken);

impl StopOnDrop {
    /// The token that the downloads of a new group wait for.
    pub(crate) fn token(&self) -> StopToken {
        StopToken { all: self.0.all.clone(), group: Arc::default() }
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        *self.0.all.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.all.1.notify_all();
    }
}

impl StopToken {
    /// Waits until downloads must stop, or until the timeout. Returns whether they must stop.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let stopped = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_running = |stopped: &mut bool| !*stopped && !self.group.load(Ordering::Relaxed);
        let waited = self.all.1.wait_timeout_while(stopped, timeout, is_running);
        *waited.unwrap_or_else(PoisonError::into_inner).0 || self.group.load(Ordering::Relaxed)
    }

    /// Stops the downloads of this group.
    pub(crate) fn stop_group(&self) {
        let stopped = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.group.store(true, Ordering::Relaxed);
        drop(stopped);
        self.all.1.notify_all();
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

    #[test]
    fn a_group_stops_without_the_others() {
        let owner = StopOnDrop::default();
        let (stop, other) = (owner.token(), owner.token());
        let waiting = std::thread::spawn({
            let stop = stop.clone();
            move || stop.wait(Duration::MAX)
        });
        stop.stop_group();
        assert!(waiting.join().unwrap() && !other.wait(Duration::ZERO));
    }
}

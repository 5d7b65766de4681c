//! The end of all fetches, which threads can wait for.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Whether fetches are to stop. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<(Mutex<bool>, Condvar)>);

/// Dropping it stops them all.
#[derive(Debug, Default)]
pub(super) struct StopOnDrop(Stop);

impl StopOnDrop {
    /// What fetches wait for.
    pub(super) fn stop(&self) -> Stop {
        self.0.clone()
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        *self.0.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.0.1.notify_all();
    }
}

impl Stop {
    /// Waits for the end, for so long at most; whether it has come.
    pub(super) fn wait(&self, most: Duration) -> bool {
        let stopped = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(stopped, most, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_hears_of_the_end_at_once() {
        let all = StopOnDrop::default();
        let stop = all.stop();
        assert!(!stop.wait(Duration::ZERO));
        let waiting = std::thread::spawn({
            let stop = stop.clone();
            move || stop.wait(Duration::MAX)
        });
        drop(all);
        assert!(waiting.join().unwrap() && stop.wait(Duration::ZERO));
    }
}

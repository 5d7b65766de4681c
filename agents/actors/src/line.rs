//! A line of those who wait, in which each knows its place.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

/// Who waits, by ticket; each change is announced.
#[derive(Clone)]
pub(crate) struct Line(Arc<Inner>);

struct Inner {
    waiting: Mutex<(u64, BTreeSet<u64>)>,
    changed: watch::Sender<()>,
}

/// A place in the line; dropping it leaves the line.
pub(crate) struct Place {
    line: Line,
    ticket: u64,
    changed: watch::Receiver<()>,
}

impl Line {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { waiting: Mutex::default(), changed: watch::Sender::new(()) }))
    }

    /// Joins at the end.
    pub(crate) fn join(&self) -> Place {
        let changed = self.0.changed.subscribe();
        let ticket = self.with(|(last, waiting)| {
            *last += 1;
            waiting.insert(*last);
            *last
        });
        Place { line: self.clone(), ticket, changed }
    }

    fn with<T>(&self, f: impl FnOnce(&mut (u64, BTreeSet<u64>)) -> T) -> T {
        f(&mut self.0.waiting.lock().expect("nothing panics while it holds the line"))
    }
}

impl Place {
    /// 1 for the next to be served.
    pub(crate) fn position(&self) -> u32 {
        let position = self.line.with(|(_, waiting)| waiting.range(..=self.ticket).count());
        u32::try_from(position).unwrap_or(u32::MAX)
    }

    /// Resolves when somebody has left the line.
    pub(crate) async fn moved(&mut self) {
        // The line holds the sender, and we hold the line.
        let _ = self.changed.changed().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.line.with(|(_, waiting)| waiting.remove(&self.ticket));
        self.line.0.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_move_up_when_somebody_leaves() {
        let line = Line::new();
        let (first, second, mut third) = (line.join(), line.join(), line.join());
        assert_eq!([first.position(), second.position(), third.position()], [1, 2, 3]);
        drop(second);
        third.moved().await;
        assert_eq!([first.position(), third.position()], [1, 2]);
    }
}

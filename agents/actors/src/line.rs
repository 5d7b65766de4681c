//! A line of those who wait, in which each can see its place.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// Who waits, by ticket.
#[derive(Clone, Default)]
pub(crate) struct Line(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    last: u64,
    tickets: BTreeSet<u64>,
}

/// A place in the line; dropping it leaves the line.
pub(crate) struct Place {
    line: Line,
    ticket: u64,
}

impl Line {
    /// Joins at the end.
    pub(crate) fn join(&self) -> Place {
        let ticket = self.with(|waiting| {
            waiting.last += 1;
            waiting.tickets.insert(waiting.last);
            waiting.last
        });
        Place { line: self.clone(), ticket }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Waiting) -> T) -> T {
        f(&mut self.0.lock().expect("nothing panics while it holds the line"))
    }
}

impl Place {
    /// 1 for the next to be served.
    pub(crate) fn position(&self) -> u32 {
        let position = self.line.with(|waiting| waiting.tickets.range(..=self.ticket).count());
        u32::try_from(position).unwrap_or(u32::MAX)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.line.with(|waiting| waiting.tickets.remove(&self.ticket));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_move_up_when_somebody_leaves() {
        let line = Line::default();
        let (first, second, third) = (line.join(), line.join(), line.join());
        assert_eq!([first.position(), second.position(), third.position()], [1, 2, 3]);
        drop(second);
        assert_eq!([first.position(), third.position()], [1, 2]);
    }
}

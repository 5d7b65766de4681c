//! The places of a role, and the line of those who wait for one: the more urgent first, then whose task is soonest done, then
//! whoever came first. Each sees where in it it is.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use artel_engine::schedule::AGING_PERIOD;
use artel_task::event::TaskPriority;
use tokio::sync::oneshot;

/// Places, and who waits for them. Clones are the same.
#[derive(Clone)]
pub(crate) struct Line(Arc<Mutex<State>>);

struct State {
    free: u32,
    tickets: u64,
    waiting: Vec<Waiter>,
}

struct Waiter {
    ticket: u64,
    class: TaskPriority,
    left: u32,
    since: Instant,
    call: oneshot::Sender<Place>,
}

/// A place; dropping it calls the next one.
pub(crate) struct Place(Line);

/// Somebody's wait; dropping it leaves the line.
pub(crate) struct Waiting {
    line: Line,
    ticket: u64,
    called: oneshot::Receiver<Place>,
}

impl Line {
    pub(crate) fn new(places: u32) -> Self {
        Self(Arc::new(Mutex::new(State { free: places, tickets: 0, waiting: Vec::new() })))
    }

    /// Waits in the line; `left`: steps that the task must do after this one. Where a place is free, it is there at once.
    pub(crate) fn join(&self, class: TaskPriority, left: u32) -> Waiting {
        let (call, called) = oneshot::channel();
        let ticket = self.with(|state| {
            state.tickets += 1;
            state.waiting.push(Waiter { ticket: state.tickets, class, left, since: Instant::now(), call });
            state.tickets
        });
        let waiting = Waiting { line: self.clone(), ticket, called };
        self.call();
        waiting
    }

    /// Gives free places to those who are next.
    fn call(&self) {
        while let Some(call) = self.with(State::next) {
            // Whoever has left meanwhile gives its place back here.
            drop(call.send(Place(self.clone())));
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().expect("nothing panics while it holds the line"))
    }
}

impl State {
    /// Takes a free place for whoever is next.
    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        if self.free == 0 {
            return None;
        }
        let now = Instant::now();
        let at = (0..self.waiting.len()).min_by_key(|at| self.waiting[*at].rank(now))?;
        self.free -= 1;
        Some(self.waiting.swap_remove(at).call)
    }
}

impl Waiter {
    /// The least goes first. Waiting makes everybody more urgent, so nobody starves.
    fn rank(&self, now: Instant) -> (u64, u32, u64) {
        let class = u64::from(self.class == TaskPriority::Batch);
        let aged = now.saturating_duration_since(self.since).as_secs() / AGING_PERIOD.as_secs();
        // More urgent than all is whoever has aged beyond the classes.
        (if aged > class { 0 } else { 1 + class - aged }, self.left, self.ticket)
    }
}

impl Waiting {
    /// 1 for the next to get a place; 0 for one that has been called.
    pub(crate) fn position(&self) -> u32 {
        self.line.with(|state| {
            let Some(mine) = state.waiting.iter().find(|waiter| waiter.ticket == self.ticket) else { return 0 };
            let now = Instant::now();
            let rank = mine.rank(now);
            let before = state.waiting.iter().filter(|waiter| waiter.rank(now) < rank).count();
            u32::try_from(before + 1).unwrap_or(u32::MAX)
        })
    }

    /// Resolves when a place is free and nobody is before us. May be dropped and called again.
    pub(crate) async fn place(&mut self) -> Place {
        // The line holds the sender until it calls, and we hold the line.
        (&mut self.called).await.expect("whoever waits is called")
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.line.with(|state| state.waiting.retain(|waiter| waiter.ticket != self.ticket));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.with(|state| state.free += 1);
        self.0.call();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn called(waiting: &mut Waiting) -> Option<Place> {
        waiting.place().now_or_never()
    }

    #[test]
    fn places_go_to_the_urgent_then_to_those_nearly_done_then_in_order() {
        let line = Line::new(1);
        let mut first = line.join(TaskPriority::Batch, 0);
        let place = called(&mut first).unwrap();
        let mut all = [
            line.join(TaskPriority::Batch, 0),
            line.join(TaskPriority::Interactive, 2),
            line.join(TaskPriority::Interactive, 1),
            line.join(TaskPriority::Interactive, 1),
        ];
        assert_eq!(all.each_ref().map(Waiting::position), [4, 3, 1, 2]);
        drop(place);
        for next in [2, 3, 1, 0] {
            let mine = called(&mut all[next]).unwrap();
            assert_eq!(all[next].position(), 0);
            assert!(all.iter_mut().all(called_not));
            drop(mine);
        }
    }

    fn called_not(waiting: &mut Waiting) -> bool {
        waiting.position() == 0 || called(waiting).is_none()
    }

    #[test]
    fn whoever_leaves_gives_up_its_wait_or_its_place() {
        let line = Line::new(2);
        let (mut one, two) = (line.join(TaskPriority::Interactive, 0), line.join(TaskPriority::Interactive, 0));
        let (three, mut four) = (line.join(TaskPriority::Interactive, 0), line.join(TaskPriority::Interactive, 0));
        assert_eq!([three.position(), four.position()], [1, 2]);
        drop(three);
        assert_eq!(four.position(), 1);
        assert!(called(&mut four).is_none());
        // It was called and never looked.
        drop(two);
        assert!(called(&mut four).is_some() && called(&mut one).is_some());
    }
}

//! Taking turns on the cores of a machine.
//!
//! Threads of llama.cpp spin while they wait for each other. Two engines that compute at the same time on the same cores
//! wait for threads that do not run, and both become many times slower; so each computes one batch, and then the next does.

use std::fmt::Debug;
use std::sync::{Arc, Condvar, Mutex};

/// How engines agree on whose turn it is.
pub trait Turns: Debug + Send + Sync + 'static {
    /// Blocks until it is our turn.
    fn take(&self);
    /// Passes the turn on.
    fn pass(&self);
}

/// A right to compute that engines share. Clones are the same right.
#[derive(Debug, Clone)]
pub struct Turn(Arc<dyn Turns>);

impl Default for Turn {
    /// For engines in one process: first come, first served.
    fn default() -> Self {
        Self::new(Tickets::default())
    }
}

impl Turn {
    /// A right that is shared in a way of its own.
    pub fn new(turns: impl Turns) -> Self {
        Self(Arc::new(turns))
    }

    /// Blocks until it is our turn.
    pub(crate) fn take(&self) -> Held<'_> {
        self.0.take();
        Held(self)
    }
}

/// A turn that is had; dropping it passes it on.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a Turn);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.pass();
    }
}

const SOUND: &str = "nothing panics while it holds the tickets";

#[derive(Debug, Default)]
struct Tickets(Mutex<Numbers>, Condvar);

#[derive(Debug, Default)]
struct Numbers {
    next: u64,
    serving: u64,
}

impl Turns for Tickets {
    fn take(&self) {
        let mut numbers = self.0.lock().expect(SOUND);
        let mine = numbers.next;
        numbers.next += 1;
        drop(self.1.wait_while(numbers, |numbers| numbers.serving != mine).expect(SOUND));
    }

    fn pass(&self) {
        self.0.lock().expect(SOUND).serving += 1;
        self.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    #[test]
    fn one_computes_at_a_time() {
        let (turn, inside, turns) = (Turn::default(), AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let _held = turn.take();
                        assert_eq!(inside.fetch_add(1, SeqCst), 0);
                        inside.fetch_sub(1, SeqCst);
                        turns.fetch_add(1, SeqCst);
                    }
                });
            }
        });
        assert_eq!(turns.load(SeqCst), 4000);
    }
}

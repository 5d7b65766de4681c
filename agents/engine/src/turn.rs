//! Taking turns on the cores of a machine.
//!
//! Threads of llama.cpp spin while they wait for each other. Two engines that compute at the same time on the same cores
//! wait for threads that do not run, and both become many times slower; so each computes one batch, and then the next does.

use std::sync::{Arc, Condvar, Mutex};

/// A right to compute that engines share; first come, first served. Clones are the same right.
#[derive(Debug, Clone, Default)]
pub struct Turn(Arc<(Mutex<Tickets>, Condvar)>);

#[derive(Debug, Default)]
struct Tickets {
    next: u64,
    serving: u64,
}

/// A turn that is had; dropping it passes it on.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a Turn);

impl Turn {
    /// Blocks until it is our turn.
    pub(crate) fn take(&self) -> Held<'_> {
        const SOUND: &str = "nothing panics while it holds the tickets";
        let mut tickets = self.0.0.lock().expect(SOUND);
        let mine = tickets.next;
        tickets.next += 1;
        drop(self.0.1.wait_while(tickets, |tickets| tickets.serving != mine).expect(SOUND));
        Held(self)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.0.lock().expect("nothing panics while it holds the tickets").serving += 1;
        self.0.0.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    #[test]
    fn one_computes_at_a_time() {
        let (turn, inside) = (Turn::default(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let _held = turn.take();
                        assert_eq!(inside.fetch_add(1, SeqCst), 0);
                        inside.fetch_sub(1, SeqCst);
                    }
                });
            }
        });
        assert_eq!(turn.0.0.lock().unwrap().serving, 4000);
    }
}

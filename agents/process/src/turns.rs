//! Turns on the cores that engines share, across processes.
//!
//! Whoever has the turn keeps it until somebody else wants it, so that an engine which computes alone asks nobody. Both
//! sides are told by messages: `want` and `passed` from an engine, `yours` and `wanted` from the [`Counter`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};

use artel_engine::CpuArbiter;
use tokio::sync::mpsc;

const SOUND: &str = "nothing panics while it holds the turn";

/// Where the engines of a machine ask for their turn; first come, first served. Clones are the same counter.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<Mutex<Line>>);

#[derive(Debug, Default)]
struct Line {
    members: HashMap<u64, mpsc::UnboundedSender<bool>>,
    next: u64,
    holder: Option<u64>,
    waiting: VecDeque<u64>,
}

/// One engine at the counter; dropping it gives its turn and its place up.
#[derive(Debug)]
pub(crate) struct Member {
    id: u64,
    counter: Counter,
}

impl Counter {
    /// A new member, and what it is told: true for its turn, false for others who want it.
    pub(crate) fn join(&self) -> (Member, mpsc::UnboundedReceiver<bool>) {
        let (sender, told) = mpsc::unbounded_channel();
        let mut line = self.0.lock().expect(SOUND);
        line.next += 1;
        let id = line.next;
        line.members.insert(id, sender);
        (Member { id, counter: self.clone() }, told)
    }
}

impl Member {
    /// Asks for a turn (once, until it has come), or passes it on.
    pub(crate) fn say(&self, want: bool) {
        let mut line = self.counter.0.lock().expect(SOUND);
        if want {
            line.waiting.push_back(self.id);
            line.tell(line.holder, false);
        } else if line.holder == Some(self.id) {
            line.holder = None;
        }
        line.serve();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut line = self.counter.0.lock().expect(SOUND);
        line.members.remove(&self.id);
        line.waiting.retain(|id| *id != self.id);
        line.holder = line.holder.filter(|id| *id != self.id);
        line.serve();
    }
}

impl Line {
    fn serve(&mut self) {
        if self.holder.is_none() {
            self.holder = self.waiting.pop_front();
            self.tell(self.holder, true);
            if !self.waiting.is_empty() {
                self.tell(self.holder, false);
            }
        }
    }

    fn tell(&self, who: Option<u64>, yours: bool) {
        if let Some(member) = who.and_then(|id| self.members.get(&id)) {
            // One that is gone gives its place up when it is dropped.
            let _ = member.send(yours);
        }
    }
}

/// An engine's side: what it was told last, and what it does.
#[derive(Debug, Clone)]
pub(crate) struct Lease(Arc<(Mutex<Hold>, Condvar, mpsc::UnboundedSender<bool>)>);

#[derive(Debug, Default)]
struct Hold {
    ours: bool,
    computing: bool,
    wanted: bool,
    asked: bool,
    /// Nobody is there any more to ask: the process ends soon.
    over: bool,
}

impl Lease {
    /// A lease, and what it says: true to ask, false to pass on.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<bool>) {
        let (sender, says) = mpsc::unbounded_channel();
        (Self(Arc::new((Mutex::default(), Condvar::new(), sender))), says)
    }

    /// What the counter says.
    pub(crate) fn told(&self, yours: bool) {
        let mut hold = self.hold();
        if yours {
            // Whoever asked has the turn from now on, so that a word that follows at once does not take it away again.
            (hold.ours, hold.computing, hold.asked) = (true, hold.asked, false);
            self.0.1.notify_all();
        } else if hold.ours {
            hold.wanted = true;
            self.yield_if_idle(&mut hold);
        }
    }

    /// Nothing more is told: whoever waits goes on without a turn.
    pub(crate) fn end(&self) {
        self.hold().over = true;
        self.0.1.notify_all();
    }

    fn yield_if_idle(&self, hold: &mut Hold) {
        if hold.ours && hold.wanted && !hold.computing {
            (hold.ours, hold.wanted) = (false, false);
            self.say(false);
        }
    }

    fn say(&self, want: bool) {
        // The connection may be closed, which ends the process.
        let _ = self.0.2.send(want);
    }

    fn hold(&self) -> std::sync::MutexGuard<'_, Hold> {
        self.0.0.lock().expect(SOUND)
    }
}

impl CpuArbiter for Lease {
    fn acquire(&self) {
        let mut hold = self.hold();
        if !hold.ours && !hold.asked && !hold.over {
            hold.asked = true;
            self.say(true);
        }
        hold = self.0.1.wait_while(hold, |hold| !hold.ours && !hold.over).expect(SOUND);
        hold.computing = true;
    }

    fn release(&self) {
        let mut hold = self.hold();
        hold.computing = false;
        self.yield_if_idle(&mut hold);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    /// An engine at the counter, with its messages carried by two tasks.
    fn engine(counter: &Counter) -> Lease {
        let (member, mut told) = counter.join();
        let (lease, mut says) = Lease::new();
        let hears = lease.clone();
        tokio::spawn(async move {
            while let Some(yours) = told.recv().await {
                hears.told(yours);
            }
        });
        tokio::spawn(async move {
            while let Some(want) = says.recv().await {
                member.say(want);
            }
        });
        lease
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_computes_at_a_time_and_nobody_waits_forever() {
        let (counter, inside, turns) = (Counter::default(), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let threads: Vec<_> = (0..3)
            .map(|_| (engine(&counter), inside.clone(), turns.clone()))
            .map(|(lease, inside, turns)| {
                tokio::task::spawn_blocking(move || {
                    for _ in 0..500 {
                        lease.acquire();
                        assert_eq!(inside.fetch_add(1, SeqCst), 0);
                        inside.fetch_sub(1, SeqCst);
                        turns.fetch_add(1, SeqCst);
                        lease.release();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.await.unwrap();
        }
        assert_eq!(turns.load(SeqCst), 1500);
    }

    #[tokio::test]
    async fn whoever_is_alone_asks_once() {
        let (lease, mut says) = Lease::new();
        let first = {
            let lease = lease.clone();
            tokio::task::spawn_blocking(move || {
                lease.acquire();
                lease.release();
            })
        };
        assert_eq!(says.recv().await, Some(true));
        lease.told(true);
        first.await.unwrap();
        lease.acquire();
        lease.release();
        assert!(says.try_recv().is_err(), "it has the turn already");
        lease.told(false);
        assert_eq!(says.recv().await, Some(false), "an idle one passes it on at once");
    }

    #[test]
    fn a_member_that_goes_gives_its_turn_up() {
        let counter = Counter::default();
        let ((first, mut one), (second, mut two)) = (counter.join(), counter.join());
        first.say(true);
        second.say(true);
        assert_eq!((one.try_recv(), one.try_recv()), (Ok(true), Ok(false)));
        assert!(two.try_recv().is_err());
        drop(first);
        assert_eq!(two.try_recv(), Ok(true));
    }
}

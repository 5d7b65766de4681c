//! Mutual exclusion of engines on the cores of a machine.
//!
//! Threads of llama.cpp spin while they wait for each other. Two engines that compute at the same time on the same cores
//! wait for threads that do not run, and both become many times slower; so one engine computes a batch, and then the next does.

use std::fmt::Debug;
use std::sync::{Arc, Condvar, Mutex};

/// Decides which engine may compute.
pub trait CpuArbiter: Debug + Send + Sync + 'static {
    /// Blocks until the caller may compute.
    fn acquire(&self);
    /// Lets the next engine compute.
    fn release(&self);
}

/// The cores that engines share, behind an arbiter. Clones refer to the same arbiter.
#[derive(Debug, Clone)]
pub struct SharedCpu(Arc<dyn CpuArbiter>);

impl Default for SharedCpu {
    /// For engines in one process: first come, first served.
    fn default() -> Self {
        Self::new(TicketArbiter::default())
    }
}

impl SharedCpu {
    /// Cores behind this arbiter.
    pub fn new(arbiter: impl CpuArbiter) -> Self {
        Self(Arc::new(arbiter))
    }

    /// Blocks until the caller may compute.
    pub(crate) fn acquire(&self) -> CpuLease<'_> {
        self.0.acquire();
        CpuLease(self)
    }
}

/// The right to compute; dropping it releases the cores.
#[derive(Debug)]
pub(crate) struct CpuLease<'a>(&'a SharedCpu);

impl Drop for CpuLease<'_> {
    fn drop(&mut self) {
        self.0.0.release();
    }
}

const NOT_POISONED: &str = "nothing panics while it holds the tickets";

/// A ticket lock.
#[derive(Debug, Default)]
struct TicketArbiter(Mutex<TicketState>, Condvar);

#[derive(Debug, Default)]
struct TicketState {
    next: u64,
    serving: u64,
}

impl CpuArbiter for TicketArbiter {
    fn acquire(&self) {
        let mut tickets = self.0.lock().expect(NOT_POISONED);
        let mine = tickets.next;
        tickets.next += 1;
        drop(self.1.wait_while(tickets, |tickets| tickets.serving != mine).expect(NOT_POISONED));
    }

    fn release(&self) {
        self.0.lock().expect(NOT_POISONED).serving += 1;
        self.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    #[test]
    fn one_computes_at_a_time() {
        let (cpu, inside, leases) = (SharedCpu::default(), AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let _lease = cpu.acquire();
                        assert_eq!(inside.fetch_add(1, SeqCst), 0);
                        inside.fetch_sub(1, SeqCst);
                        leases.fetch_add(1, SeqCst);
                    }
                });
            }
        });
        assert_eq!(leases.load(SeqCst), 4000);
    }
}

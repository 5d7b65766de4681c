//! A lease on the CPU cores that engines share, across processes.
//!
//! An engine keeps the lease until another one waits for it, so that an engine which computes alone exchanges no messages. An
//! engine sends a request or a release; the [`CpuLeaseBroker`] sends a grant or a recall. From an engine that shows no sign of
//! life the lease is revoked, and it is granted none until it shows one: two engines that compute at once are slow, an engine
//! that waits for one that never releases is lost.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex};

use artel_engine::CpuArbiter;
use tokio::sync::mpsc;

const NOT_POISONED: &str = "nothing panics while it holds the lock";

/// Grants the engines of a machine the lease in the order of their requests. Clones are the same broker.
#[derive(Debug, Clone, Default)]
pub struct CpuLeaseBroker(Arc<Mutex<BrokerState>>);

#[derive(Debug, Default)]
struct BrokerState {
    members: HashMap<u64, mpsc::UnboundedSender<bool>>,
    last_id: u64,
    holder: Option<u64>,
    waiting: VecDeque<u64>,
    /// Members that show no sign of life.
    suspended: HashSet<u64>,
}

/// An engine that takes part; dropping it releases the lease and withdraws its request.
#[derive(Debug)]
pub(crate) struct BrokerMember {
    id: u64,
    broker: CpuLeaseBroker,
}

impl CpuLeaseBroker {
    /// Adds a member. Returns it with its notices: true for a grant, false for a recall.
    pub(crate) fn join(&self) -> (BrokerMember, mpsc::UnboundedReceiver<bool>) {
        let (sender, notices) = mpsc::unbounded_channel();
        let mut state = self.0.lock().expect(NOT_POISONED);
        state.last_id += 1;
        let id = state.last_id;
        state.members.insert(id, sender);
        (BrokerMember { id, broker: self.clone() }, notices)
    }
}

impl BrokerMember {
    /// Requests the lease (once, until it is granted), or releases it.
    pub(crate) fn request(&self, acquire: bool) {
        let mut state = self.broker.0.lock().expect(NOT_POISONED);
        if acquire {
            state.waiting.push_back(self.id);
            state.notify(state.holder, false);
        } else if state.holder == Some(self.id) {
            state.holder = None;
        }
        state.grant_next();
    }

    /// Revokes the lease of a member that shows no sign of life, and grants it none until [`resume`](Self::resume). Returns
    /// whether it held the lease.
    pub(crate) fn suspend(&self) -> bool {
        let mut state = self.broker.0.lock().expect(NOT_POISONED);
        state.suspended.insert(self.id);
        let is_holder = state.holder == Some(self.id);
        if is_holder {
            state.holder = None;
            // If it computes later after all, it releases the lease that it believes to hold.
            state.notify(Some(self.id), false);
            state.grant_next();
        }
        is_holder
    }

    /// The member shows a sign of life: it waits for the lease like any other.
    pub(crate) fn resume(&self) {
        let mut state = self.broker.0.lock().expect(NOT_POISONED);
        if state.suspended.remove(&self.id) {
            state.grant_next();
        }
    }
}

impl Drop for BrokerMember {
    fn drop(&mut self) {
        let mut state = self.broker.0.lock().expect(NOT_POISONED);
        state.members.remove(&self.id);
        state.suspended.remove(&self.id);
        state.waiting.retain(|id| *id != self.id);
        state.holder = state.holder.filter(|id| *id != self.id);
        state.grant_next();
    }
}

impl BrokerState {
    /// Grants a free lease to the next waiting member that is not suspended, and recalls it at once if others wait.
    fn grant_next(&mut self) {
        if self.holder.is_none() {
            let next = self.waiting.iter().position(|id| !self.suspended.contains(id));
            self.holder = next.and_then(|at| self.waiting.remove(at));
            self.notify(self.holder, true);
            if !self.waiting.is_empty() {
                self.notify(self.holder, false);
            }
        }
    }

    fn notify(&self, id: Option<u64>, granted: bool) {
        if let Some(member) = id.and_then(|id| self.members.get(&id)) {
            // A member whose receiver is closed releases its lease when it is dropped.
            let _ = member.send(granted);
        }
    }
}

/// The engine's side: acquires and releases the lease by messages to the broker.
#[derive(Debug, Clone)]
pub(crate) struct CpuLeaseClient(Arc<(Mutex<LeaseState>, Condvar, mpsc::UnboundedSender<bool>)>);

#[derive(Debug, Default)]
struct LeaseState {
    is_granted: bool,
    is_computing: bool,
    is_recalled: bool,
    is_requested: bool,
    /// The connection to the broker has ended, and the process ends soon.
    is_closed: bool,
}

impl CpuLeaseClient {
    /// Creates a client. Returns it with its messages: true for a request, false for a release.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<bool>) {
        let (sender, requests) = mpsc::unbounded_channel();
        (Self(Arc::new((Mutex::default(), Condvar::new(), sender))), requests)
    }

    /// Handles a notice of the broker.
    pub(crate) fn on_notice(&self, granted: bool) {
        let mut state = self.state();
        if granted {
            // Counts as computing at once, so that a recall that follows immediately does not take the lease away unused.
            (state.is_granted, state.is_computing, state.is_requested) = (true, state.is_requested, false);
            self.0.1.notify_all();
        } else if state.is_granted {
            state.is_recalled = true;
            self.release_if_idle(&mut state);
        }
    }

    /// No notices follow: a waiting thread continues without the lease.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.0.1.notify_all();
    }

    fn release_if_idle(&self, state: &mut LeaseState) {
        if state.is_granted && state.is_recalled && !state.is_computing {
            (state.is_granted, state.is_recalled) = (false, false);
            self.send(false);
        }
    }

    fn send(&self, acquire: bool) {
        // The connection may be closed, which ends the process.
        let _ = self.0.2.send(acquire);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, LeaseState> {
        self.0.0.lock().expect(NOT_POISONED)
    }
}

impl CpuArbiter for CpuLeaseClient {
    fn acquire(&self) {
        let mut state = self.state();
        if !state.is_granted && !state.is_requested && !state.is_closed {
            state.is_requested = true;
            self.send(true);
        }
        state = self.0.1.wait_while(state, |state| !state.is_granted && !state.is_closed).expect(NOT_POISONED);
        state.is_computing = true;
    }

    fn release(&self) {
        let mut state = self.state();
        state.is_computing = false;
        self.release_if_idle(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    /// A client connected to a broker by two tasks.
    fn client(broker: &CpuLeaseBroker) -> CpuLeaseClient {
        let (member, mut notices) = broker.join();
        let (client, mut requests) = CpuLeaseClient::new();
        let receiver = client.clone();
        tokio::spawn(async move {
            while let Some(granted) = notices.recv().await {
                receiver.on_notice(granted);
            }
        });
        tokio::spawn(async move {
            while let Some(acquire) = requests.recv().await {
                member.request(acquire);
            }
        });
        client
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_computes_at_a_time_and_none_waits_forever() {
        let broker = CpuLeaseBroker::default();
        let (inside, batches) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let threads: Vec<_> = (0..3)
            .map(|_| (client(&broker), inside.clone(), batches.clone()))
            .map(|(client, inside, batches)| {
                tokio::task::spawn_blocking(move || {
                    for _ in 0..500 {
                        client.acquire();
                        assert_eq!(inside.fetch_add(1, SeqCst), 0);
                        inside.fetch_sub(1, SeqCst);
                        batches.fetch_add(1, SeqCst);
                        client.release();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.await.unwrap();
        }
        assert_eq!(batches.load(SeqCst), 1500);
    }

    #[tokio::test]
    async fn an_engine_that_computes_alone_requests_once() {
        let (client, mut requests) = CpuLeaseClient::new();
        let first = {
            let client = client.clone();
            tokio::task::spawn_blocking(move || {
                client.acquire();
                client.release();
            })
        };
        assert_eq!(requests.recv().await, Some(true));
        client.on_notice(true);
        first.await.unwrap();
        client.acquire();
        client.release();
        assert!(requests.try_recv().is_err(), "it holds the lease already");
        client.on_notice(false);
        assert_eq!(requests.recv().await, Some(false), "an idle engine releases it at once");
    }

    #[test]
    fn the_lease_of_a_member_without_a_sign_of_life_is_revoked() {
        let broker = CpuLeaseBroker::default();
        let ((stopped, mut one), (other, mut two)) = (broker.join(), broker.join());
        stopped.request(true);
        other.request(true);
        assert_eq!((one.try_recv(), one.try_recv()), (Ok(true), Ok(false)));
        assert!(two.try_recv().is_err(), "a holder that may be slow keeps its lease");
        assert!(stopped.suspend());
        assert_eq!((one.try_recv(), two.try_recv()), (Ok(false), Ok(true)));
        // It goes on, releases what it has lost, and asks again.
        stopped.request(false);
        stopped.request(true);
        assert_eq!(two.try_recv(), Ok(false), "the other one holds the lease still, and it is recalled");
        other.request(false);
        assert!(one.try_recv().is_err(), "it is granted nothing without a sign of life");
        other.request(true);
        assert_eq!(two.try_recv(), Ok(true), "the others do not wait for it");
        assert_eq!(two.try_recv(), Ok(false));
        other.request(false);
        stopped.resume();
        assert_eq!(one.try_recv(), Ok(true), "it has kept its place");
        assert!(!other.suspend(), "it holds nothing");
    }

    #[test]
    fn a_member_that_is_dropped_while_it_is_suspended_is_forgotten() {
        let broker = CpuLeaseBroker::default();
        let (stopped, _notices) = broker.join();
        stopped.request(true);
        stopped.suspend();
        drop(stopped);
        let (other, mut notices) = broker.join();
        other.request(true);
        assert_eq!(notices.try_recv(), Ok(true));
        assert!(broker.0.lock().unwrap().suspended.is_empty());
    }

    #[test]
    fn a_dropped_member_releases_the_lease() {
        let broker = CpuLeaseBroker::default();
        let ((first, mut one), (second, mut two)) = (broker.join(), broker.join());
        first.request(true);
        second.request(true);
        assert_eq!((one.try_recv(), one.try_recv()), (Ok(true), Ok(false)));
        assert!(two.try_recv().is_err());
        drop(first);
        assert_eq!(two.try_recv(), Ok(true));
    }
}

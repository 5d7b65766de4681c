//! The open connections: how many there are, what each of them does, and which one makes room.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use artel_metrics::GaugeGuard;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ConnectionLimits;
use crate::peer_address::{PeerAddress, PeerKey};

/// The open connections of an acceptor.
#[derive(Debug)]
pub(crate) struct ConnectionTable {
    limits: ConnectionLimits,
    connections: Mutex<HashMap<u64, Arc<OpenConnection>>>,
}

#[derive(Debug)]
struct OpenConnection {
    /// What counts against the limit of a peer.
    peer: PeerKey,
    usage: watch::Sender<CallUsage>,
    evicted: CancellationToken,
}

/// What a connection is used for.
#[derive(Debug, Clone, Copy)]
struct CallUsage {
    open_calls: usize,
    /// Of these, the calls of callers that are known.
    admitted_calls: usize,
    has_called: bool,
    /// Since when it has no call.
    idle_since: Instant,
}

impl ConnectionTable {
    pub(crate) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits, connections: Mutex::default() })
    }

    /// A slot for a new connection. At a limit, the connection that has idled longest is evicted, one without any call so far
    /// first; `None` if all that count have calls of known callers. So strangers, whatever they send, keep no place from others.
    pub(crate) fn admit(self: &Arc<Self>, id: u64, peer: PeerAddress) -> Option<ConnectionSlot> {
        let key = peer.key();
        let mut connections = self.connections();
        let of_peer = connections.values().filter(|connection| connection.peer == key).count();
        let (peer_is_full, all_are_full) = (of_peer >= self.limits.per_peer, connections.len() >= self.limits.total);
        if peer_is_full || all_are_full {
            evict(&mut connections, |connection| !peer_is_full || connection.peer == key)?;
        }
        let usage = CallUsage { open_calls: 0, admitted_calls: 0, has_called: false, idle_since: Instant::now() };
        let usage = watch::Sender::new(usage);
        let connection = Arc::new(OpenConnection { peer: key, usage, evicted: CancellationToken::new() });
        connections.insert(id, connection.clone());
        drop(connections);
        Some(ConnectionSlot {
            id,
            peer,
            connection,
            table: self.clone(),
            has_evicted: peer_is_full || all_are_full,
            socket: None,
            counted: None,
        })
    }

    /// Evicts the connection that has idled longest, if there is one.
    pub(crate) fn evict_idle(&self) {
        evict(&mut self.connections(), |_| true);
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<OpenConnection>>> {
        // Nothing in here panics in the middle of a change.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Evicts the one among these connections that has idled longest; `None` if all have calls of known callers.
fn evict(
    connections: &mut HashMap<u64, Arc<OpenConnection>>,
    is_candidate: impl Fn(&OpenConnection) -> bool,
) -> Option<()> {
    let idle = connections.iter().filter(|(_, connection)| is_candidate(connection)).filter_map(|(id, connection)| {
        let usage = *connection.usage.borrow();
        (usage.admitted_calls == 0).then_some(((usage.has_called, usage.idle_since, *id), *id))
    });
    let (_, id) = idle.min_by_key(|(rank, _)| *rank)?;
    connections.remove(&id)?.evicted.cancel();
    Some(())
}

/// A connection's place among the open ones. Dropping it frees the place.
#[derive(Debug)]
pub struct ConnectionSlot {
    id: u64,
    peer: PeerAddress,
    connection: Arc<OpenConnection>,
    table: Arc<ConnectionTable>,
    /// Whether another connection made room for it.
    pub(crate) has_evicted: bool,
    /// Its share of the sockets that may be open, those of evicted connections among them.
    pub(crate) socket: Option<OwnedSemaphorePermit>,
    /// Counts it among the open ones.
    pub(crate) counted: Option<GaugeGuard>,
}

impl ConnectionSlot {
    /// The other end.
    pub fn peer(&self) -> PeerAddress {
        self.peer
    }

    /// Begins a call: the connection is in use until the returned value is dropped.
    pub fn begin_call(&self) -> OpenCall {
        self.connection.usage.send_modify(|usage| {
            usage.open_calls += 1;
            usage.has_called = true;
        });
        OpenCall(Arc::new(CallShare { connection: self.connection.clone(), is_admitted: AtomicBool::new(false) }))
    }

    /// Resolves when the connection must make room for another: close it at once.
    pub async fn evicted(&self) {
        self.connection.evicted.cancelled().await;
    }

    /// Resolves when there has been no call for this long: `first` before the first one, `later` after each.
    pub async fn idle_for(&self, first: Duration, later: Duration) {
        let mut usage = self.connection.usage.subscribe();
        loop {
            let seen = *usage.borrow_and_update();
            let idle_end = async {
                match seen.open_calls {
                    0 => tokio::time::sleep_until(seen.idle_since + if seen.has_called { later } else { first }).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = idle_end => return,
                // The sender lives as long as this slot.
                _ = usage.changed() => {}
            }
        }
    }

    /// Resolves when no call of a known caller is open.
    pub async fn without_calls(&self) {
        // The sender lives as long as this slot.
        let _ = self.connection.usage.subscribe().wait_for(|usage| usage.admitted_calls == 0).await;
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.table.connections().remove(&self.id);
    }
}

/// An open call of a connection. It ends when all clones are dropped.
#[derive(Debug, Clone)]
pub struct OpenCall(Arc<CallShare>);

#[derive(Debug)]
struct CallShare {
    connection: Arc<OpenConnection>,
    is_admitted: AtomicBool,
}

impl OpenCall {
    /// Notes that its caller is known and may make it: its connection makes room for no other.
    pub fn admit(&self) {
        if !self.0.is_admitted.swap(true, Ordering::Relaxed) {
            self.0.connection.usage.send_modify(|usage| usage.admitted_calls += 1);
        }
    }

    /// Whether its caller is known.
    pub fn is_admitted(&self) -> bool {
        self.0.is_admitted.load(Ordering::Relaxed)
    }
}

impl Drop for CallShare {
    fn drop(&mut self) {
        let is_admitted = *self.is_admitted.get_mut();
        self.connection.usage.send_modify(|usage| {
            usage.open_calls -= 1;
            usage.admitted_calls -= usize::from(is_admitted);
            usage.idle_since = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn table(total: usize, per_peer: usize) -> Arc<ConnectionTable> {
        ConnectionTable::new(ConnectionLimits { total, per_peer })
    }

    fn peer(n: u8) -> PeerAddress {
        PeerAddress::Tcp(([127, 0, 0, n], 1000).into())
    }

    fn is_evicted(slot: &ConnectionSlot) -> bool {
        slot.connection.evicted.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_idled_longest_makes_room() {
        let table = table(3, 3);
        let slots: Vec<_> = (0..3).map(|id| table.admit(id, peer(1)).unwrap()).collect();
        // The first one has called, so that the second one goes before it.
        drop(slots[0].begin_call());
        let fourth = table.admit(3, peer(1)).unwrap();
        assert_eq!(slots.iter().map(is_evicted).collect::<Vec<_>>(), [false, true, false]);
        drop(slots);
        assert_eq!(table.connections().len(), 1);
        drop(fourth);
        assert_eq!(table.connections().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_at_its_maximum_takes_nothing_from_others() {
        let table = table(4, 2);
        let other = table.admit(0, peer(2)).unwrap();
        let slots: Vec<_> = (1..3).map(|id| table.admit(id, peer(1)).unwrap()).collect();
        let admitted = |slot: &ConnectionSlot| {
            let call = slot.begin_call();
            call.admit();
            call
        };
        let calls: Vec<_> = slots.iter().map(admitted).collect();
        assert!(table.admit(3, peer(1)).is_none(), "all of its connections have calls");
        assert!(!is_evicted(&other));
        let third = table.admit(4, peer(3)).unwrap();
        let _calls = (calls, admitted(&other), admitted(&third));
        assert!(table.admit(5, peer(4)).is_none(), "all connections have calls");
    }

    #[tokio::test(start_paused = true)]
    async fn the_call_of_a_stranger_keeps_no_place() {
        let table = table(2, 2);
        let (stranger, known) = (table.admit(0, peer(1)).unwrap(), table.admit(1, peer(1)).unwrap());
        let (open, admitted) = (stranger.begin_call(), known.begin_call());
        admitted.admit();
        let third = table.admit(2, peer(2)).unwrap();
        assert_eq!((is_evicted(&stranger), is_evicted(&known)), (true, false));
        drop((open, admitted));
        // Its call has ended, so that it idles like the third, for a shorter time.
        table.admit(3, peer(2)).unwrap();
        assert_eq!((is_evicted(&third), is_evicted(&known)), (true, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_idles_from_its_start_and_from_the_end_of_its_last_call() {
        let table = table(1, 1);
        let slot = table.admit(0, peer(1)).unwrap();
        let start = Instant::now();
        slot.idle_for(SECOND, SECOND * 10).await;
        assert_eq!(start.elapsed(), SECOND);
        let (first, second) = (slot.begin_call(), slot.begin_call());
        let (_, idle) = tokio::join!(
            async {
                tokio::time::sleep(SECOND * 100).await;
                drop(first);
                tokio::time::sleep(SECOND * 100).await;
                drop(second);
            },
            async {
                slot.idle_for(SECOND, SECOND * 10).await;
                start.elapsed()
            }
        );
        assert_eq!(idle, SECOND * 211);
        tokio::time::timeout(SECOND, slot.without_calls()).await.unwrap();
    }
}

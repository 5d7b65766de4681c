//! The places of connections, which the acceptors of several sockets may share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use artel_metrics::ConnectionMetrics;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ConnectionLimits;
use crate::connection_table::{ConnectionSlot, ConnectionTable};
use crate::peer_address::PeerAddress;

/// Of so many connections, one more may be closing because it was evicted.
const EVICTED_DIVISOR: usize = 4;

/// The places of connections within limits. Clones share them.
#[derive(Debug, Clone)]
pub struct ConnectionPlaces {
    table: Arc<ConnectionTable>,
    /// A permit for each socket: more than for connections, since one that is evicted takes a moment to close.
    sockets: Arc<Semaphore>,
    last_id: Arc<AtomicU64>,
    metrics: ConnectionMetrics,
}

impl ConnectionPlaces {
    /// Free places within these limits.
    pub fn new(limits: ConnectionLimits) -> Self {
        Self {
            table: ConnectionTable::new(limits),
            sockets: Arc::new(Semaphore::new(limits.total + limits.total / EVICTED_DIVISOR)),
            last_id: Arc::default(),
            metrics: ConnectionMetrics::default(),
        }
    }

    /// The same, which count their connections here.
    #[must_use]
    pub fn with_metrics(self, metrics: ConnectionMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Makes room for the socket that an acceptor holds ready while it waits.
    pub(crate) fn expect_acceptor(&self) {
        self.sockets.add_permits(1);
    }

    /// The permit for a socket.
    pub(crate) async fn socket(&self) -> OwnedSemaphorePermit {
        self.sockets.clone().acquire_owned().await.expect("it is never closed")
    }

    /// A slot for a new connection, if there is one.
    pub(crate) fn admit(&self, peer: PeerAddress) -> Option<ConnectionSlot> {
        let Some(mut slot) = self.table.admit(self.last_id.fetch_add(1, Ordering::Relaxed), peer) else {
            self.metrics.refused();
            return None;
        };
        slot.counted = Some(self.metrics.accepted());
        if slot.has_evicted {
            self.metrics.evicted();
        }
        Some(slot)
    }

    /// Evicts the connection that has idled longest, if there is one.
    pub(crate) fn evict_idle(&self) {
        self.table.evict_idle();
    }
}

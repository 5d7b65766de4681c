//! The log of refused calls: a line for the first one, then one now and then, whatever clients do.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::sync::{Mutex, PoisonError};

use artel_accept::{LogThrottle, Peer};

use crate::refusal::{AccessRefusal, PeerIdentity, peer_text};

/// Peers and kinds of refusals that are counted apart. Beyond, all others share a line.
const MAX_COUNTED_CLIENTS: usize = 1024;

/// Logs refusals: each kind at most once a minute for each peer.
#[derive(Default)]
pub(crate) struct RefusalLog(Mutex<Throttles>);

#[derive(Default)]
struct Throttles {
    peers: HashMap<(PeerIdentity, Discriminant<AccessRefusal>), LogThrottle>,
    others: LogThrottle,
}

impl RefusalLog {
    pub(crate) fn note(&self, refusal: &AccessRefusal, peer: Option<&Peer>) {
        // Nothing in here panics.
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner).count(refusal, peer);
        if let Some(calls) = refused {
            tracing::warn!(peer = peer_text(peer), calls, reason = %refusal, "calls were refused");
        }
    }
}

impl Throttles {
    /// The number of refusals to log now, if it is time.
    fn count(&mut self, refusal: &AccessRefusal, peer: Option<&Peer>) -> Option<u64> {
        let key = (PeerIdentity::of(peer), discriminant(refusal));
        if self.peers.len() >= MAX_COUNTED_CLIENTS && !self.peers.contains_key(&key) {
            self.peers.retain(|_, throttle| !throttle.is_idle());
        }
        match self.peers.len() < MAX_COUNTED_CLIENTS || self.peers.contains_key(&key) {
            true => self.peers.entry(key).or_default().count(),
            false => self.others.count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn peer(n: u32, port: u16) -> Peer {
        let address = SocketAddr::from((std::net::Ipv4Addr::from_bits(n), port));
        Peer::Tcp { address, is_encrypted: false, certificate_name: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_of_refusal_is_a_line_for_each_peer() {
        let mut throttles = Throttles::default();
        let mut lines = |refusal: &AccessRefusal, host: u32| {
            (0..1000).filter_map(|port| throttles.count(refusal, Some(&peer(host, port)))).count()
        };
        assert_eq!((lines(&AccessRefusal::UnknownToken, 1), lines(&AccessRefusal::UnknownToken, 1)), (1, 0));
        assert_eq!((lines(&AccessRefusal::NoToken, 1), lines(&AccessRefusal::UnknownToken, 2)), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_peers_takes_bounded_memory_and_few_lines() {
        let mut throttles = Throttles::default();
        let mut lines = |from: u32| {
            (from..from + 10_000)
                .filter_map(|host| throttles.count(&AccessRefusal::UnknownToken, Some(&peer(host, 1))))
                .count()
        };
        assert_eq!(lines(0), MAX_COUNTED_CLIENTS + 1);
        tokio::time::advance(std::time::Duration::from_secs(61)).await;
        assert!(lines(1_000_000) <= MAX_COUNTED_CLIENTS + 1);
        assert!(throttles.peers.len() <= MAX_COUNTED_CLIENTS);
    }
}

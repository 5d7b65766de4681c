//! The log of refused calls: a line for the first one, then one now and then, whatever clients do.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::sync::{Mutex, MutexGuard, PoisonError};

use artel_accept::{LogThrottle, Peer};

use crate::refusal::{AccessRefusal, PeerIdentity, peer_text};

/// Peers and kinds of refusals that are counted apart. Beyond, all others share a line.
const MAX_COUNTED_CLIENTS: usize = 1024;

/// Logs refusals: each kind at most once a minute for each peer.
#[derive(Default)]
pub(crate) struct RefusalLog(Mutex<Throttles>);

#[derive(Default)]
struct Throttles {
    clients: HashMap<(PeerIdentity, Discriminant<AccessRefusal>), RefusedClient>,
    others: LogThrottle,
}

/// A peer with a kind of refusal.
#[derive(Default)]
struct RefusedClient {
    throttle: LogThrottle,
    /// The last refusal that is not logged yet.
    last: Option<RefusalLine>,
}

/// What a line of the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RefusalLine {
    peer: String,
    reason: String,
}

impl RefusalLog {
    pub(crate) fn note(&self, refusal: &AccessRefusal, peer: Option<&Peer>) {
        let line = || RefusalLine { peer: peer_text(peer), reason: refusal.to_string() };
        let refused = self.throttles().count(refusal, peer, line);
        if let Some(calls) = refused {
            line().write(calls);
        }
    }

    /// Logs the refusals that were only counted, where it is time.
    pub(crate) fn write_pending(&self) {
        let pending = self.throttles().take_pending();
        pending.into_iter().for_each(|(line, calls)| line.write(calls));
    }

    fn throttles(&self) -> MutexGuard<'_, Throttles> {
        // Nothing in here panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RefusalLine {
    fn write(&self, calls: u64) {
        tracing::warn!(peer = self.peer, calls, reason = self.reason, "calls were refused");
    }
}

impl Throttles {
    /// The number of refusals to log now, if it is time.
    fn count(
        &mut self,
        refusal: &AccessRefusal,
        peer: Option<&Peer>,
        line: impl FnOnce() -> RefusalLine,
    ) -> Option<u64> {
        let key = (PeerIdentity::of(peer), discriminant(refusal));
        if self.clients.len() >= MAX_COUNTED_CLIENTS && !self.clients.contains_key(&key) {
            self.clients.retain(|_, client| client.last.is_some() || !client.throttle.is_idle());
        }
        if self.clients.len() >= MAX_COUNTED_CLIENTS && !self.clients.contains_key(&key) {
            return self.others.count();
        }
        let client = self.clients.entry(key).or_default();
        let refused = client.throttle.count();
        client.last = if refused.is_some() { None } else { Some(client.last.take().unwrap_or_else(line)) };
        refused
    }

    fn take_pending(&mut self) -> Vec<(RefusalLine, u64)> {
        let mut pending = Vec::new();
        for client in self.clients.values_mut() {
            if let Some(calls) = client.throttle.take_pending() {
                pending.extend(client.last.take().map(|line| (line, calls)));
            }
        }
        if let Some(calls) = self.others.take_pending() {
            let line = RefusalLine { peer: "many peers".to_owned(), reason: "several reasons".to_owned() };
            pending.push((line, calls));
        }
        self.clients.retain(|_, client| client.last.is_some() || !client.throttle.is_idle());
        pending
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

    fn line() -> RefusalLine {
        RefusalLine { peer: "10.0.0.1:80".to_owned(), reason: "no".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_that_end_are_logged_with_their_number() {
        let mut throttles = Throttles::default();
        for port in 0..1000 {
            throttles.count(&AccessRefusal::UnknownToken, Some(&peer(1, port)), line);
        }
        assert_eq!(throttles.take_pending(), []);
        tokio::time::advance(std::time::Duration::from_secs(60)).await;
        assert_eq!(throttles.take_pending(), [(line(), 999)]);
        tokio::time::advance(std::time::Duration::from_secs(60)).await;
        assert_eq!((throttles.take_pending(), throttles.clients.len()), (Vec::new(), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_of_refusal_is_a_line_for_each_peer() {
        let mut throttles = Throttles::default();
        let mut lines = |refusal: &AccessRefusal, host: u32| {
            (0..1000).filter_map(|port| throttles.count(refusal, Some(&peer(host, port)), line)).count()
        };
        assert_eq!((lines(&AccessRefusal::UnknownToken, 1), lines(&AccessRefusal::UnknownToken, 1)), (1, 0));
        assert_eq!((lines(&AccessRefusal::NoToken, 1), lines(&AccessRefusal::UnknownToken, 2)), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_peers_takes_bounded_memory_and_few_lines() {
        let mut throttles = Throttles::default();
        let mut lines = |from: u32| {
            (from..from + 10_000)
                .filter_map(|host| throttles.count(&AccessRefusal::UnknownToken, Some(&peer(host, 1)), line))
                .count()
        };
        assert_eq!(lines(0), MAX_COUNTED_CLIENTS + 1);
        tokio::time::advance(std::time::Duration::from_secs(61)).await;
        assert!(lines(1_000_000) <= MAX_COUNTED_CLIENTS + 1);
        assert!(throttles.clients.len() <= MAX_COUNTED_CLIENTS);
    }
}

//! The other end of a connection, as the system names it when the connection is accepted.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The other end of an accepted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAddress {
    /// Over TCP.
    Tcp(SocketAddr),
    /// A process of this user, over a Unix socket.
    Unix {
        /// The user, from the credentials that the kernel gives.
        user_id: u32,
    },
}

/// What counts against the limit of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerKey {
    Network(IpAddr),
    User(u32),
}

impl PeerAddress {
    pub(crate) fn key(self) -> PeerKey {
        match self {
            Self::Tcp(address) => PeerKey::Network(peer_network(address.ip())),
            Self::Unix { user_id } => PeerKey::User(user_id),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix { user_id } => write!(f, "user {user_id} over the Unix socket"),
        }
    }
}

/// The network that one peer has for itself: an IPv4 address, or 64 bits of an IPv6 address.
pub fn peer_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_an_address_or_a_network_of_sixty_four_bits() {
        let address = |text: &str| peer_network(text.parse().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::2:0:0:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
        assert_ne!(address("10.0.0.1"), address("10.0.0.2"));
    }

    #[test]
    fn a_user_is_a_peer_of_its_own() {
        let key = |user_id| PeerAddress::Unix { user_id }.key();
        assert_eq!(key(1000), key(1000));
        assert_ne!(key(1000), key(0));
    }
}

//! Why a call is refused, in words for its caller.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use artel_accept::{Peer, peer_network};
use artel_task::CallerName;

use crate::scope::AccessScope;

/// Why a call is refused. No message tells more than the caller knows or is entitled to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessRefusal {
    /// Nothing names a caller.
    #[error("a token is needed: send `authorization: Bearer TOKEN`")]
    NoToken,
    /// The header is not that of a token.
    #[error("the header `authorization` is not `Bearer TOKEN`")]
    InvalidHeader,
    /// No token has this text: it never had, or it was revoked.
    #[error("the token is unknown or revoked")]
    UnknownToken,
    /// The token has ended.
    #[error("the token `{0}` has expired")]
    ExpiredToken(CallerName),
    /// The process on the socket runs as another user.
    #[error("user {0} is not the user whose daemon it is: a token is needed")]
    ForeignUser(u32),
    /// The certificate is valid and names no caller.
    #[error("no token has the name of the client certificate")]
    UnknownCertificate,
    /// The caller may not do this.
    #[error("the token `{caller}` lacks the scope `{scope}`")]
    MissingScope {
        /// The caller.
        caller: CallerName,
        /// What is needed.
        scope: AccessScope,
    },
    /// The caller calls more often than allowed.
    #[error("the token `{caller}` may make {calls_per_minute} calls a minute")]
    TooManyCalls {
        /// The caller.
        caller: CallerName,
        /// The limit.
        calls_per_minute: NonZeroU32,
        /// When the next call is allowed.
        delay: Duration,
    },
    /// The caller has as many streams open as allowed.
    #[error("the token `{caller}` may have {streams} streams open at the same time")]
    TooManyStreams {
        /// The caller.
        caller: CallerName,
        /// The limit.
        streams: NonZeroU32,
    },
    /// There is no such method or route.
    #[error("there is no such method")]
    UnknownRoute,
}

impl AccessRefusal {
    /// The caller that is refused, if the call has named one.
    pub fn caller(&self) -> Option<&CallerName> {
        match self {
            Self::ExpiredToken(caller)
            | Self::MissingScope { caller, .. }
            | Self::TooManyCalls { caller, .. }
            | Self::TooManyStreams { caller, .. } => Some(caller),
            Self::NoToken
            | Self::InvalidHeader
            | Self::UnknownToken
            | Self::ForeignUser(_)
            | Self::UnknownCertificate
            | Self::UnknownRoute => None,
        }
    }
}

/// The peer of a call, for the log.
pub fn peer_text(peer: Option<&Peer>) -> String {
    match peer {
        Some(Peer::Tcp { address, .. }) => address.to_string(),
        Some(Peer::Unix { user_id }) => format!("user {user_id}"),
        None => "unknown".to_owned(),
    }
}

/// What of a peer is the same in its next connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PeerIdentity {
    Network(IpAddr),
    User(u32),
    Unknown,
}

impl PeerIdentity {
    pub(crate) fn of(peer: Option<&Peer>) -> Self {
        match peer {
            Some(Peer::Tcp { address, .. }) => Self::Network(peer_network(address.ip())),
            Some(Peer::Unix { user_id }) => Self::User(*user_id),
            None => Self::Unknown,
        }
    }
}

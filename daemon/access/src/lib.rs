//! Access: the callers, and what each of them may do.
//!
//! A call comes with what its connection tells ([`Peer`](artel_accept::Peer)) and with the token that it presents.
//! [`Access::admit`] finds the route in the [table of routes](ROUTES), the [`Caller`], and whether the caller has the scope
//! that the route needs; what comes out is an [`AdmittedCall`] or a [`AccessRefusal`]. Tokens are in the [`TokenStore`], a file of the
//! data directory with their hashes alone; the token of the owner, the user whose daemon it is, is the file [`OWNER_FILE`], and a
//! client learns from the [`PublishedAddress`] where it may send that one.
//!
//! Everything that a caller without a token can make happen is bounded: a hash, a comparison, and a line of the log now and
//! then. How requests arrive and how a refusal is told, gRPC and HTTP, is not known here, nor is any task: that a caller
//! sees its own tasks alone is decided where the tasks are.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod call_meter;
mod caller;
mod error;
mod owner_token;
mod private_file;
mod published_address;
mod refusal;
mod refusal_log;
mod routes;
mod scope;
mod secret;
mod store;
mod token;

pub use access::{Access, AdmittedCall, CallGrant, Credentials};
pub use caller::Caller;
pub use error::Error;
pub use owner_token::OWNER_FILE;
pub use published_address::PublishedAddress;
pub use refusal::{AccessRefusal, peer_text};
pub use routes::{ROUTES, Route, RouteNeed};
pub use scope::{AccessScope, ScopeSet, UnknownScope};
pub use secret::Secret;
pub use store::{NewToken, TokenStore};
pub use token::{AccessToken, TokenLimits};

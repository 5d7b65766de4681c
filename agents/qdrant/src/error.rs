//! Why a call failed.

use std::time::Duration;

use crate::address::ServerAddress;
use crate::collection_name::CollectionName;
use crate::operation::Operation;
use crate::shape::CollectionShape;

/// Why a call failed. No message has the api key in it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// TLS cannot be set up, for lack of certificates of this system.
    #[error("cannot set up TLS for Qdrant at {address}: {cause}; check the certificates of this system")]
    Tls {
        /// The server.
        address: ServerAddress,
        /// Why.
        cause: String,
    },
    /// There is no connection, or it broke.
    #[error(
        "cannot reach Qdrant at {address}: {cause}; check that it runs and that this is its port for gRPC, 6334 unless it is \
         told otherwise"
    )]
    Unreachable {
        /// The server.
        address: ServerAddress,
        /// What the network says.
        cause: String,
    },
    /// The server does not accept the key, or wants one.
    #[error("Qdrant at {address} does not let this client {operation} `{collection}`: {reason}; {}", key_advice(*.has_key))]
    Unauthenticated {
        /// The server.
        address: ServerAddress,
        /// The collection.
        collection: CollectionName,
        /// What was asked.
        operation: Operation,
        /// What the server says.
        reason: String,
        /// Whether there was a key.
        has_key: bool,
    },
    /// There is such a collection, but of another form.
    #[error(
        "the collection `{collection}` of Qdrant at {address} has {found}, and {needed} is needed; name another collection, or \
         delete this one and it is created anew"
    )]
    CollectionDiffers {
        /// The server.
        address: ServerAddress,
        /// The collection.
        collection: CollectionName,
        /// The vectors that it has.
        found: CollectionShape,
        /// Those that it should have.
        needed: CollectionShape,
    },
    /// There is no such collection, or no longer.
    #[error("Qdrant at {address} has no collection `{collection}`: {reason}; it must be created and filled anew")]
    NoCollection {
        /// The server.
        address: ServerAddress,
        /// The collection.
        collection: CollectionName,
        /// What the server says.
        reason: String,
    },
    /// No answer came in time.
    #[error(
        "Qdrant at {address} did not {operation} `{collection}` within {after:?}; look at its load, or allow it more time"
    )]
    Timeout {
        /// The server.
        address: ServerAddress,
        /// The collection.
        collection: CollectionName,
        /// What was asked.
        operation: Operation,
        /// How long it had.
        after: Duration,
    },
    /// The server cannot do it now.
    #[error("Qdrant at {address} cannot {operation} `{collection}` now: {reason}; try again later")]
    Busy {
        /// The server.
        address: ServerAddress,
        /// The collection.
        collection: CollectionName,
        /// What was asked.
        operation: Operation,
        /// What the server says.
        reason: String,
    },
    /// The server does not do it.
    #[error("Qdrant at {address} refuses to {operation} `{collection}`: {reason}; its log may say more")]
    Refused {
        /// The server.
        address: ServerAddress,
        /// The collection.
        collection: CollectionName,
        /// What was asked.
        operation: Operation,
        /// What the server says.
        reason: String,
    },
    /// A knowledge has more points than are listed.
    #[error(
        "the collection `{collection}` of Qdrant at {address} has more than {limit} points of the knowledge `{knowledge}`; \
         divide it"
    )]
    TooManyPoints {
        /// The server.
        address: ServerAddress,
        /// The collection.
        collection: CollectionName,
        /// The knowledge.
        knowledge: String,
        /// The most that are listed.
        limit: usize,
    },
    /// A filter cannot be written for the name of a label.
    #[error(
        "cannot filter by the label `{label}`: filters of Qdrant take no names with `\"` or `\\`; rename the label"
    )]
    LabelName {
        /// The name.
        label: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without any change of it.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. } | Self::Busy { .. })
    }
}

fn key_advice(has_key: bool) -> &'static str {
    if has_key { "set an api key that may read and write this collection" } else { "set its api key" }
}

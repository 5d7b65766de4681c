//! Where a collection is.

use std::time::Duration;

use crate::address::ServerAddress;
use crate::api_key::ApiKey;
use crate::collection_name::CollectionName;

/// Which collection, where, and how it is reached.
#[derive(Debug, Clone)]
pub struct QdrantSettings {
    /// The server.
    pub address: ServerAddress,
    /// The collection; its name may be an alias.
    pub collection: CollectionName,
    /// The key of the server, if it wants one.
    pub api_key: Option<ApiKey>,
    /// How long one call may take, the way to a connection included. An operation that sends several messages has this time
    /// for each.
    pub timeout: Duration,
}

impl QdrantSettings {
    /// Whether others on the network may read the key.
    pub fn exposes_key(&self) -> bool {
        self.api_key.is_some() && !self.address.is_encrypted() && !self.address.is_loopback()
    }
}

//! Stores and points.

use std::time::Duration;

use artel_qdrant::{PointId, PointMetadata, QdrantSettings, QdrantStore, StoredPoint};
use artel_qdrant_server::QdrantServer;

pub(crate) const COLLECTION: &str = "artel";
/// The dimensions of the points here.
pub(crate) const DIMENSIONS: u32 = 3;
/// Longer than anything here takes.
pub(crate) const LONG_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn settings(url: &str) -> QdrantSettings {
    QdrantSettings {
        address: url.parse().unwrap(),
        collection: COLLECTION.parse().unwrap(),
        api_key: None,
        timeout: LONG_TIMEOUT,
    }
}

pub(crate) fn store_at(url: &str) -> QdrantStore {
    QdrantStore::new(settings(url)).unwrap()
}

/// A server and a store that is prepared.
pub(crate) async fn prepared() -> (QdrantServer, QdrantStore) {
    let server = QdrantServer::start().await.unwrap();
    let store = store_at(&server.url());
    store.prepare(DIMENSIONS).await.unwrap();
    (server, store)
}

pub(crate) fn id(number: u32) -> PointId {
    PointId::from_bytes(u128::from(number).to_be_bytes())
}

/// A point of a knowledge; its id is this number.
pub(crate) fn point(number: u32, knowledge: &str, vector: &[f32]) -> StoredPoint {
    StoredPoint {
        id: id(number),
        vector: vector.to_vec(),
        text: format!("text {number}"),
        metadata: PointMetadata { knowledge: knowledge.to_owned(), ..PointMetadata::default() },
    }
}

/// Many points of a knowledge.
pub(crate) fn points(numbers: std::ops::Range<u32>, knowledge: &str) -> Vec<StoredPoint> {
    numbers.map(|number| point(number, knowledge, &[1.0, 0.0, 0.0])).collect()
}

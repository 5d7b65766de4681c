//! What `prepare` finds and makes.

use artel_qdrant::Error;
use artel_qdrant_server::QdrantServer;
use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::vectors_config::Config;
use qdrant_client::qdrant::{CreateCollection, Distance, VectorParams, VectorParamsMap, VectorsConfig};

use crate::fixtures::{COLLECTION, DIMENSIONS, points, prepared, store_at};

#[tokio::test]
async fn a_collection_is_created_once_and_kept() {
    let (server, store) = prepared().await;
    store.upsert(points(0..3, "docs")).await.unwrap();
    let before = server.calls().len();
    store.prepare(DIMENSIONS).await.unwrap();
    assert_eq!(server.points(COLLECTION).len(), 3);
    assert_eq!(server.indexed_fields(COLLECTION), ["metadata.knowledge", "metadata.owner", "metadata.source"]);
    let second: Vec<&str> = server.calls()[before..].iter().map(|call| call.method).collect();
    assert_eq!(second, ["Collections/Get"]);
}

#[tokio::test]
async fn a_store_makes_no_call_before_it_is_used() {
    let server = QdrantServer::start().await.unwrap();
    let store = store_at(&server.url());
    assert_eq!(server.calls(), []);
    store.prepare(DIMENSIONS).await.unwrap();
    let methods: Vec<&str> = server.calls().iter().map(|call| call.method).collect();
    assert_eq!(methods[..3], ["Collections/Get", "Collections/Create", "Collections/Get"]);
}

#[tokio::test]
async fn processes_that_prepare_at_once_share_a_collection() {
    let server = QdrantServer::start().await.unwrap();
    let stores: Vec<_> = (0..8).map(|_| store_at(&server.url())).collect();
    let prepared = futures::future::join_all(stores.iter().map(|store| store.prepare(DIMENSIONS))).await;
    assert!(prepared.iter().all(Result::is_ok), "{prepared:?}");
    assert_eq!(server.collections(), [COLLECTION]);
    let creates = server.calls().iter().filter(|call| call.method == "Collections/Create").count();
    assert!(creates > 1, "only one tried to create it");
}

#[tokio::test]
async fn a_server_that_refuses_indexes_is_as_good() {
    let server = QdrantServer::start().await.unwrap();
    server.refuse_indexes();
    let store = store_at(&server.url());
    store.prepare(DIMENSIONS).await.unwrap();
    store.upsert(points(0..1, "docs")).await.unwrap();
    assert_eq!(server.indexed_fields(COLLECTION), [""; 0]);
    assert_eq!(store.points("docs").await.unwrap().len(), 1);
}

#[tokio::test]
async fn other_dimensions_are_refused_in_words() {
    let (_server, store) = prepared().await;
    let error = store.prepare(DIMENSIONS + 1).await.unwrap_err();
    assert!(matches!(error, Error::CollectionDiffers { .. }) && !error.is_passing(), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("the collection `artel` of Qdrant at http://127.0.0.1:"), "{text}");
    assert!(text.contains("has one unnamed vector of 3 dimensions (distance Cosine)"), "{text}");
    assert!(text.contains("one unnamed vector of 4 dimensions (distance Cosine) is needed"), "{text}");
}

#[tokio::test]
async fn another_distance_and_named_vectors_are_refused_in_words() {
    let params = |distance: Distance| VectorParams {
        size: u64::from(DIMENSIONS),
        distance: distance.into(),
        ..Default::default()
    };
    let named = ["text", "image"].map(|name| (name.to_owned(), params(Distance::Cosine)));
    for (config, found) in [
        (Config::Params(params(Distance::Dot)), "has one unnamed vector of 3 dimensions (distance Dot)"),
        (Config::ParamsMap(VectorParamsMap { map: named.into() }), "has vectors with names (`image`, `text`)"),
    ] {
        let server = QdrantServer::start().await.unwrap();
        create(&server, VectorsConfig { config: Some(config) }).await;
        let error = store_at(&server.url()).prepare(DIMENSIONS).await.unwrap_err();
        assert!(error.to_string().contains(found), "{error}");
    }
}

#[tokio::test]
async fn a_collection_without_dense_vectors_is_refused_in_words() {
    let server = QdrantServer::start().await.unwrap();
    create(&server, VectorsConfig::default()).await;
    let error = store_at(&server.url()).prepare(DIMENSIONS).await.unwrap_err();
    assert!(error.to_string().contains("has no dense vectors"), "{error}");
}

#[tokio::test]
async fn a_collection_that_is_gone_is_told_and_can_be_prepared_again() {
    let (server, store) = prepared().await;
    assert!(server.drop_collection(COLLECTION));
    let error = store.upsert(points(0..1, "docs")).await.unwrap_err();
    assert!(matches!(error, Error::NoCollection { .. }) && !error.is_passing(), "{error:?}");
    store.prepare(DIMENSIONS).await.unwrap();
    store.upsert(points(0..1, "docs")).await.unwrap();
    assert_eq!(server.points(COLLECTION).len(), 1);
}

/// Creates the collection as others may have.
async fn create(server: &QdrantServer, vectors: VectorsConfig) {
    let mut client = CollectionsClient::connect(server.url()).await.unwrap();
    let message = CreateCollection {
        collection_name: COLLECTION.to_owned(),
        vectors_config: Some(vectors),
        ..CreateCollection::default()
    };
    client.create(message).await.unwrap();
}

//! Servers that are not there, that hang, and that fail.

use std::time::{Duration, Instant};

use artel_qdrant::{Error, QdrantSettings, QdrantStore, SearchPoints};
use artel_qdrant_server::QdrantServer;
use qdrant_client::qdrant::CreateFieldIndexCollection;
use qdrant_client::qdrant::points_client::PointsClient;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::fixtures::{COLLECTION, DIMENSIONS, LONG_TIMEOUT, points, prepared, settings, store_at};

/// The time of a call that is not answered.
const SHORT_TIMEOUT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn an_absent_server_is_a_passing_failure_with_its_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = store_at(&url).prepare(DIMENSIONS).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && error.is_passing(), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&url) && text.contains("onnection refused") && text.contains("6334"), "{text}");
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_left_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let store = QdrantStore::new(QdrantSettings { timeout: SHORT_TIMEOUT, ..settings(&url) }).unwrap();
    is_left_in_time(&store).await;
    drop(listener);
}

#[tokio::test]
async fn a_call_that_is_never_answered_is_left_in_time() {
    let (server, _) = prepared().await;
    let store = QdrantStore::new(QdrantSettings { timeout: SHORT_TIMEOUT, ..settings(&server.url()) }).unwrap();
    server.hang();
    is_left_in_time(&store).await;
    server.heal();
    store.upsert(points(0..1, "docs")).await.unwrap();
}

async fn is_left_in_time(store: &QdrantStore) {
    let begun = Instant::now();
    let error = store.points("docs").await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }) && error.is_passing(), "{error:?}");
    assert!(error.to_string().contains("did not list points of the collection `artel` within 300ms"), "{error}");
    assert!(begun.elapsed() >= SHORT_TIMEOUT && begun.elapsed() < LONG_TIMEOUT / 2, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_port_of_http_is_told_as_another_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    });
    let error = store_at(&url).prepare(DIMENSIONS).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("its port for gRPC"), "{error}");
}

#[tokio::test]
async fn a_server_that_fails_between_batches_is_a_passing_failure() {
    let (server, store) = prepared().await;
    server.fail_after(2);
    let error = store.upsert(points(0..1_000, "docs")).await.unwrap_err();
    assert!(matches!(error, Error::Busy { .. }) && error.is_passing(), "{error:?}");
    assert!(error.to_string().contains("cannot write points of the collection `artel` now"), "{error}");
    assert_eq!(server.points(COLLECTION).len(), 512);
    server.heal();
    store.upsert(points(0..1_000, "docs")).await.unwrap();
    assert_eq!(server.points(COLLECTION).len(), 1_000);
}

#[tokio::test]
async fn every_operation_says_that_a_failure_passes() {
    let (server, store) = prepared().await;
    server.fail_after(0);
    let search =
        SearchPoints { knowledge: "docs".to_owned(), vector: vec![1.0, 0.0, 0.0], top: 1, ..Default::default() };
    let ids: Vec<_> = points(0..1, "docs").iter().map(|point| point.id).collect();
    let errors = [
        store.prepare(DIMENSIONS).await.unwrap_err(),
        store.points("docs").await.unwrap_err(),
        store.upsert(points(0..1, "docs")).await.unwrap_err(),
        store.delete(&ids).await.unwrap_err(),
        store.search(search).await.unwrap_err(),
    ];
    assert!(errors.iter().all(Error::is_passing), "{errors:?}");
}

#[tokio::test]
async fn a_store_connects_again_by_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let store = store_at(&url);
    let closing = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        drop(stream);
        listener
    });
    assert!(matches!(store.prepare(DIMENSIONS).await.unwrap_err(), Error::Unreachable { .. }));
    let server = QdrantServer::serve_on(closing.await.unwrap()).unwrap();
    store.prepare(DIMENSIONS).await.unwrap();
    assert_eq!(server.collections(), [COLLECTION]);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_refused() {
    let (server, store) = prepared().await;
    let mut client = PointsClient::connect(server.url()).await.unwrap();
    for letter in ["a", "b"] {
        // The description of the collection has the names of its indexes.
        let message = CreateFieldIndexCollection {
            collection_name: COLLECTION.to_owned(),
            field_name: letter.repeat(3 << 20),
            ..CreateFieldIndexCollection::default()
        };
        client.create_field_index(message).await.unwrap();
    }
    let error = store.prepare(DIMENSIONS).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("too large"), "{error}");
}

//! Points that are written, listed and deleted.

use std::collections::BTreeSet;

use artel_qdrant::{Error, PointId, PointMetadata, SearchPoints, StoredPoint};
use artel_qdrant_server::QdrantServer;
use qdrant_client::qdrant::points_client::PointsClient;
use qdrant_client::qdrant::{PointStruct, UpsertPoints, Value};
use serde_json::json;

use crate::fixtures::{COLLECTION, DIMENSIONS, id, point, points, prepared};

#[tokio::test]
async fn a_point_has_the_payload_that_langchain_reads() {
    let (server, store) = prepared().await;
    let metadata = PointMetadata {
        knowledge: "docs".to_owned(),
        source: "/srv/docs/guide.pdf".to_owned(),
        page: Some(7),
        first_line: 3,
        last_line: 9,
        context: vec!["Guide".to_owned(), "Install".to_owned()],
        labels: [("lang".to_owned(), "en".to_owned())].into(),
        owner: "alice".to_owned(),
        model: "e5".to_owned(),
    };
    let stored = StoredPoint { id: id(1), vector: vec![0.0, 3.0, 4.0], text: "How to install".to_owned(), metadata };
    let without_page =
        StoredPoint { metadata: PointMetadata { page: None, ..stored.metadata.clone() }, ..stored.clone() };
    store.upsert(vec![stored, StoredPoint { id: id(2), ..without_page }]).await.unwrap();
    let served = server.points(COLLECTION);
    assert_eq!(served[0].id, "00000000-0000-0000-0000-000000000001");
    assert_eq!(served[0].vector, [0.0, 0.6, 0.8]);
    let mut metadata = json!({
        "knowledge": "docs",
        "source": "/srv/docs/guide.pdf",
        "page": 7,
        "lines": [3, 9],
        "context": ["Guide", "Install"],
        "labels": {"lang": "en"},
        "owner": "alice",
        "model": "e5",
    });
    assert_eq!(served[0].payload, json!({"page_content": "How to install", "metadata": metadata}));
    metadata.as_object_mut().unwrap().shift_remove("page");
    assert_eq!(served[1].payload["metadata"], metadata);
}

#[tokio::test]
async fn a_point_replaces_that_of_the_same_id() {
    let (server, store) = prepared().await;
    store.upsert(vec![point(1, "docs", &[1.0, 0.0, 0.0])]).await.unwrap();
    store.upsert(vec![point(1, "notes", &[0.0, 1.0, 0.0])]).await.unwrap();
    let served = server.points(COLLECTION);
    assert_eq!((served.len(), &served[0].vector), (1, &vec![0.0, 1.0, 0.0]));
    assert_eq!(store.points("docs").await.unwrap(), BTreeSet::new());
    assert_eq!(store.points("notes").await.unwrap(), BTreeSet::from([id(1)]));
}

#[tokio::test]
async fn points_are_written_listed_and_deleted_in_batches() {
    let (server, store) = prepared().await;
    store.upsert(points(0..2_500, "docs")).await.unwrap();
    store.upsert(points(10_000..10_300, "notes")).await.unwrap();
    let listed = store.points("docs").await.unwrap();
    assert_eq!(listed, (0..2_500).map(id).collect());
    assert_eq!(store.points("nothing").await.unwrap(), BTreeSet::new());
    let all: Vec<PointId> = listed.into_iter().collect();
    store.delete(&all).await.unwrap();
    assert_eq!(server.points(COLLECTION).len(), 300);
    let calls = server.calls();
    let sizes = |method: &str| -> Vec<usize> {
        calls.iter().filter(|call| call.method == method).map(|call| call.points).collect()
    };
    assert_eq!(sizes("Points/Upsert"), [256, 256, 256, 256, 256, 256, 256, 256, 256, 196, 256, 44]);
    assert_eq!(sizes("Points/Scroll"), [1_000, 1_000, 1_000, 1_000]);
    assert_eq!(sizes("Points/Delete"), [1_000, 1_000, 500]);
}

#[tokio::test]
async fn nothing_to_write_or_delete_is_no_call() {
    let (server, store) = prepared().await;
    let before = server.calls();
    store.upsert(Vec::new()).await.unwrap();
    store.delete(&[]).await.unwrap();
    assert_eq!(server.calls(), before);
}

#[tokio::test]
async fn an_id_that_is_not_there_is_deleted_in_peace() {
    let (server, store) = prepared().await;
    store.upsert(points(0..2, "docs")).await.unwrap();
    store.delete(&[id(1), id(77)]).await.unwrap();
    assert_eq!(server.points(COLLECTION).len(), 1);
}

#[tokio::test]
async fn points_of_others_with_numbers_for_ids_are_left_out() {
    let (server, store) = prepared().await;
    add_numbered(&server, &[1.0, 0.0, 0.0]).await;
    store.upsert(points(0..2, "docs")).await.unwrap();
    assert_eq!(server.points(COLLECTION).len(), 3);
    assert_eq!(store.points("docs").await.unwrap(), BTreeSet::from([id(0), id(1)]));
}

#[tokio::test]
async fn a_vector_of_other_dimensions_is_refused_with_the_words_of_the_server() {
    let (server, store) = prepared().await;
    let error = store.upsert(vec![point(1, "docs", &[1.0, 0.0])]).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }) && !error.is_passing(), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("refuses to write points of the collection `artel`"), "{text}");
    assert!(text.contains("expected dim: 3, got 2"), "{text}");
    assert_eq!(server.points(COLLECTION), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_work_in_tasks_of_their_own() {
    let (server, store) = prepared().await;
    let tasks = (0..4_u32).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            let knowledge = format!("docs{task}");
            store.prepare(DIMENSIONS).await?;
            store.upsert(points(task * 100..task * 100 + 100, &knowledge)).await?;
            store.delete(&[id(task * 100)]).await?;
            let search =
                SearchPoints { knowledge: knowledge.clone(), vector: vec![1.0; 3], top: 200, ..Default::default() };
            let found = store.search(search).await?.len();
            Ok::<_, Error>((found, store.points(&knowledge).await?.len()))
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap().unwrap(), (99, 99));
    }
    assert_eq!(server.points(COLLECTION).len(), 396);
}

/// A point that says that it is of the knowledge `docs`, with a number for its id.
async fn add_numbered(server: &QdrantServer, vector: &[f32]) {
    let metadata = Value::from(vec![("knowledge", "docs")]);
    let point = PointStruct {
        id: Some(5.into()),
        payload: [("metadata".to_owned(), metadata)].into(),
        vectors: Some(vector.to_vec().into()),
    };
    let message =
        UpsertPoints { collection_name: COLLECTION.to_owned(), points: vec![point], ..UpsertPoints::default() };
    PointsClient::connect(server.url()).await.unwrap().upsert(message).await.unwrap();
}

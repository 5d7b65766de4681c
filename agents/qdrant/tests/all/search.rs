//! What a search finds.

use artel_qdrant::{Error, PointId, QdrantStore, SearchPoints, StoredPoint};
use artel_qdrant_server::QdrantServer;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::fixtures::{id, point, prepared, store_at};

#[tokio::test]
async fn the_order_of_a_hundred_points_is_that_of_brute_force() {
    const DIMENSIONS: usize = 24;
    let server = QdrantServer::start().await.unwrap();
    let store = store_at(&server.url());
    store.prepare(DIMENSIONS as u32).await.unwrap();
    let mut random = StdRng::seed_from_u64(20_260_101);
    let mut vector = || -> Vec<f32> { (0..DIMENSIONS).map(|_| random.random_range(-1.0..1.0)).collect() };
    let points: Vec<StoredPoint> = (0..100).map(|number| point(number, "docs", &vector())).collect();
    store.upsert(points.clone()).await.unwrap();
    for _ in 0..5 {
        let query = vector();
        let mut expected: Vec<(f64, PointId)> =
            points.iter().map(|point| (cosine(&query, &point.vector), point.id)).collect();
        expected.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        for top in [10, 100, 1_000] {
            let search =
                SearchPoints { knowledge: "docs".to_owned(), vector: query.clone(), top, ..Default::default() };
            let found = store.search(search).await.unwrap();
            let expected = &expected[..found.len()];
            assert_eq!(found.len(), 100.min(top as usize));
            assert!(found.iter().map(|point| point.id).eq(expected.iter().map(|(_, id)| *id)));
            let is_close = |found: f32, expected: f64| (f64::from(found) - expected).abs() < 1e-5;
            assert!(found.iter().zip(expected).all(|(point, (score, _))| is_close(point.score, *score)));
        }
    }
}

#[tokio::test]
async fn a_search_finds_points_of_its_knowledge_alone() {
    let (_server, store) = filled().await;
    assert_eq!(found(&store, SearchPoints::default()).await, [1, 2, 3]);
    let search = SearchPoints { knowledge: "notes".to_owned(), ..vector() };
    assert_eq!(store.search(search).await.unwrap().iter().map(|point| point.id).collect::<Vec<_>>(), [id(4)]);
    let search = SearchPoints { knowledge: "nothing".to_owned(), ..vector() };
    assert_eq!(store.search(search).await.unwrap(), []);
}

#[tokio::test]
async fn filters_are_all_met() {
    let (_server, store) = filled().await;
    let sources = |sources: &[&str]| sources.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let labels = |labels: &[(&str, &str)]| {
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let any = SearchPoints::default;
    for (search, expected) in [
        (SearchPoints { sources: sources(&["/a.md"]), ..any() }, vec![1]),
        (SearchPoints { sources: sources(&["/a.md", "/c.md"]), ..any() }, vec![1, 3]),
        (SearchPoints { sources: sources(&["/a"]), ..any() }, vec![]),
        (SearchPoints { owners: sources(&["alice"]), ..any() }, vec![1, 2]),
        (SearchPoints { owners: sources(&["alice", "bob"]), ..any() }, vec![1, 2, 3]),
        (SearchPoints { labels: labels(&[("lang", "en")]), ..any() }, vec![1, 3]),
        (SearchPoints { labels: labels(&[("lang", "en"), ("a team.x[0]", "ops")]), ..any() }, vec![3]),
        (SearchPoints { labels: labels(&[("lang", "de")]), ..any() }, vec![]),
        (
            SearchPoints {
                sources: sources(&["/a.md", "/b.md"]),
                owners: sources(&["alice"]),
                labels: labels(&[("lang", "ru")]),
                ..any()
            },
            vec![2],
        ),
    ] {
        assert_eq!(found(&store, search.clone()).await, expected, "{search:?}");
    }
}

#[tokio::test]
async fn a_label_that_no_filter_can_name_is_refused_before_a_call() {
    let (server, store) = filled().await;
    let before = server.calls();
    let labels = [("a\"b".to_owned(), "x".to_owned())].into();
    let error = store.search(SearchPoints { knowledge: "docs".to_owned(), labels, ..vector() }).await.unwrap_err();
    assert!(matches!(&error, Error::LabelName { label } if label == "a\"b") && !error.is_passing(), "{error:?}");
    assert_eq!(server.calls(), before);
}

#[tokio::test]
async fn a_search_for_no_points_is_no_call() {
    let (server, store) = filled().await;
    let before = server.calls();
    assert_eq!(store.search(SearchPoints { top: 0, ..vector() }).await.unwrap(), []);
    assert_eq!(server.calls(), before);
}

/// Three points of the knowledge `docs` and one of `notes`, each farther from [`vector`] than the one before.
async fn filled() -> (QdrantServer, QdrantStore) {
    let (server, store) = prepared().await;
    let with = |number: u32, knowledge: &str, source: &str, owner: &str, labels: &[(&str, &str)]| {
        let mut point = point(number, knowledge, &[1.0, number as f32 / 10.0, 0.0]);
        point.metadata.source = source.to_owned();
        point.metadata.owner = owner.to_owned();
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        point.metadata.labels = labels.collect();
        point
    };
    let points = vec![
        with(1, "docs", "/a.md", "alice", &[("lang", "en")]),
        with(2, "docs", "/b.md", "alice", &[("lang", "ru")]),
        with(3, "docs", "/c.md", "bob", &[("lang", "en"), ("a team.x[0]", "ops")]),
        with(4, "notes", "/a.md", "alice", &[("lang", "en")]),
    ];
    store.upsert(points).await.unwrap();
    (server, store)
}

fn vector() -> SearchPoints {
    SearchPoints { vector: vec![1.0, 0.0, 0.0], top: 10, ..SearchPoints::default() }
}

/// The numbers of the points of `docs` that are found with the filters of a search.
async fn found(store: &QdrantStore, filters: SearchPoints) -> Vec<u32> {
    let SearchPoints { sources, labels, owners, .. } = filters;
    let search = SearchPoints { knowledge: "docs".to_owned(), sources, labels, owners, ..vector() };
    let found = store.search(search).await.unwrap();
    found.iter().map(|point| u128::from_be_bytes(*point.id.as_bytes()) as u32).collect()
}

fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let dot = |one: &[f32], other: &[f32]| -> f64 {
        one.iter().zip(other).map(|(one, other)| f64::from(*one) * f64::from(*other)).sum()
    };
    dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
}

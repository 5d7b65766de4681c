//! Keys that are right, wrong or missing, and that are never shown.

use artel_qdrant::{Error, QdrantSettings, QdrantStore};
use artel_qdrant_server::QdrantServer;

use crate::fixtures::{DIMENSIONS, settings};

const KEY: &str = "r1ght-k3y";
const WRONG_KEY: &str = "wr0ng-k3y";

#[tokio::test]
async fn the_right_key_is_let_in() {
    let server = QdrantServer::start_with_key(KEY).await.unwrap();
    store_with(&server, Some(KEY)).prepare(DIMENSIONS).await.unwrap();
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_not_shown() {
    let server = QdrantServer::start_with_key(KEY).await.unwrap();
    let error = store_with(&server, Some(WRONG_KEY)).prepare(DIMENSIONS).await.unwrap_err();
    assert!(matches!(error, Error::Unauthenticated { has_key: true, .. }) && !error.is_passing(), "{error:?}");
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("Invalid API key [key]") && text.contains("set an api key that may read and write"),
        "{text}"
    );
    assert!(!text.contains(WRONG_KEY), "{text}");
}

#[tokio::test]
async fn a_missing_key_is_asked_for() {
    let server = QdrantServer::start_with_key(KEY).await.unwrap();
    let error = store_with(&server, None).prepare(DIMENSIONS).await.unwrap_err();
    assert!(matches!(error, Error::Unauthenticated { has_key: false, .. }), "{error:?}");
    assert!(error.to_string().ends_with("set its api key"), "{error}");
    assert_eq!(server.calls(), []);
}

#[tokio::test]
async fn a_key_is_not_shown_by_what_holds_it() {
    let server = QdrantServer::start_with_key(KEY).await.unwrap();
    let settings = settings_with(&server, Some(KEY));
    let store = QdrantStore::new(settings.clone()).unwrap();
    store.prepare(DIMENSIONS).await.unwrap();
    let shown = format!("{settings:?} {settings:#?} {store:?} {store:#?}");
    assert!(shown.contains("api_key: Some(ApiKey)") && !shown.contains(KEY), "{shown}");
}

#[tokio::test]
async fn a_key_is_exposed_on_a_network_without_tls() {
    for (url, has_key, exposes) in [
        ("http://127.0.0.1:6334", true, false),
        ("https://vectors.example", true, false),
        ("http://vectors.example", true, true),
        ("http://vectors.example", false, false),
    ] {
        let api_key = has_key.then(|| KEY.parse().unwrap());
        assert_eq!(QdrantSettings { api_key, ..settings(url) }.exposes_key(), exposes, "{url}");
    }
}

fn settings_with(server: &QdrantServer, key: Option<&str>) -> QdrantSettings {
    QdrantSettings { api_key: key.map(|key| key.parse().unwrap()), ..settings(&server.url()) }
}

fn store_with(server: &QdrantServer, key: Option<&str>) -> QdrantStore {
    QdrantStore::new(settings_with(server, key)).unwrap()
}

//! Other settings: another generation is built while the one before answers.

use std::collections::HashSet;

use tempfile::TempDir;

use super::*;
use crate::Error;

async fn search(index: &Index, model: &str, text: &str) -> SearchResult {
    index.search("handbook", query(model, text)).await.unwrap()
}

#[tokio::test]
async fn the_old_generation_answers_until_the_new_one_is_complete() {
    let dir = TempDir::new().unwrap();
    let index = open(&dir).await;
    let old = index.open_base("handbook", &settings("old", "a")).await.unwrap();
    assert_eq!(old.answering, None);
    put(&index, old, "old", "/docs/a.md", "A zebra runs.", meta("a")).await;
    let new = index.open_base("handbook", &settings("new", "a")).await.unwrap();
    assert_eq!(new.answering, Some(old.target));
    assert_eq!(texts(&search(&index, "old", "zebra").await), ["A zebra runs."]);
    assert!(!search(&index, "old", "zebra").await.is_without_vectors);
    // A file that changes meanwhile is never answered with its old text, though the old model does not embed the new one.
    put(&index, new, "new", "/docs/a.md", "A lion runs.", meta("a2")).await;
    assert_eq!(texts(&search(&index, "old", "lion").await), ["A lion runs."]);
    index.close().await;

    let index = open(&dir).await;
    let again = index.open_base("handbook", &settings("new", "a")).await.unwrap();
    assert_eq!(again, new, "an interrupted build goes on");
    assert_eq!(index.stats(again.target).await.unwrap().chunks, 1);
    index.swap(again).await.unwrap();
    let found = search(&index, "new", "lion").await;
    assert!(found.best_vector.is_some() && texts(&found) == ["A lion runs."]);
    assert!(search(&index, "old", "lion").await.is_without_vectors);
    assert_eq!(index.stats(old.target).await.unwrap().chunks, 0);
    let refused = index.replace(old, &key("/docs/a.md"), meta("a3"), Vec::new()).await;
    assert!(matches!(refused, Err(Error::UnknownGeneration { .. })), "{refused:?}");
}

#[tokio::test]
async fn settings_that_change_back_give_up_what_was_begun() {
    let dir = TempDir::new().unwrap();
    let index = open(&dir).await;
    let first = index.open_base("handbook", &settings("m", "a")).await.unwrap();
    put(&index, first, "m", "/docs/a.md", "A zebra runs.", meta("a")).await;
    let second = index.open_base("handbook", &settings("m", "b")).await.unwrap();
    let back = index.open_base("handbook", &settings("m", "a")).await.unwrap();
    assert_eq!(back, first);
    let refused = index.replace(second, &key("/docs/a.md"), meta("a"), Vec::new()).await;
    assert!(matches!(refused, Err(Error::UnknownGeneration { .. })));
    assert_eq!(texts(&search(&index, "m", "zebra").await), ["A zebra runs."]);
    assert!(index.remove_base("handbook").await.unwrap());
    assert!(!index.remove_base("handbook").await.unwrap());
    assert!(matches!(index.search("handbook", query("m", "zebra")).await, Err(Error::UnknownBase { .. })));
}

#[tokio::test]
async fn embeddings_stay_for_text_that_returns() {
    let dir = TempDir::new().unwrap();
    let index = open(&dir).await;
    let base = index.open_base("handbook", &settings("m", "a")).await.unwrap();
    put(&index, base, "m", "/docs/a.md", "A zebra runs.", meta("a")).await;
    let hash = ContentHash::of(b"A zebra runs.");
    let missing = async |model: &str| index.missing_embeddings(&ModelPrint::new(model), &[hash]).await.unwrap();
    assert_eq!(missing("m").await, HashSet::new());
    assert_eq!(missing("other").await, HashSet::from([hash]));
    index.remove(base, vec![key("/docs/a.md")]).await.unwrap();
    index.sweep().await.unwrap();
    assert_eq!(missing("m").await, HashSet::new(), "it was removed just now");
    let prepared = chunks("Never embedded.").into_iter().map(|chunk| PreparedChunk::of(chunk, &[])).collect();
    let refused = index.replace(base, &key("/docs/b.md"), meta("b"), prepared).await;
    assert!(matches!(refused, Err(Error::MissingEmbeddings { missing: 1, .. })), "{refused:?}");
    assert_eq!(index.entries(base.target).await.unwrap(), [], "nothing of it was stored");
}

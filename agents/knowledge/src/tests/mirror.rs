//! What another store of vectors lacks, and what it has too many of.

use std::collections::BTreeSet;

use tempfile::TempDir;

use super::*;

async fn with_points(dir: &TempDir) -> (Index, OpenedBase, Vec<crate::MirrorPoint>) {
    let index = open(dir).await;
    let base = index.open_base("handbook", &settings("m", "a")).await.unwrap();
    put(&index, base, "m", "/docs/a.md", "A zebra runs.\n\nA lion sleeps.", meta("a")).await;
    put(&index, base, "m", "/docs/b.md", "A walrus swims.", meta("b")).await;
    let points = index.lacking_points(base.target, 10).await.unwrap();
    (index, base, points)
}

#[tokio::test]
async fn a_chunk_is_lacking_until_it_is_written_and_again_when_its_place_changes() {
    let dir = TempDir::new().unwrap();
    let (index, base, points) = with_points(&dir).await;
    assert_eq!(points.len(), 3);
    assert_eq!(
        (points[0].chunk.text.as_str(), points[0].model.as_str()),
        ("A zebra runs.", ModelPrint::new("m").as_str())
    );
    let length: f32 = points[0].vector.iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 0.01, "{length}");
    // A crash before they are confirmed: they are written again, under the same ids.
    let again = index.lacking_points(base.target, 10).await.unwrap();
    assert_eq!(again, points);
    index.mirrored(points.iter().map(|point| point.id).collect()).await.unwrap();
    assert!(!index.lacks_points(base.target).await.unwrap());
    assert_eq!(index.written_points(base.target).await.unwrap().len(), 3);
    assert!(index.rename(base, &key("/docs/b.md"), &key("/docs/c.md"), meta("b")).await.unwrap());
    let renamed = index.lacking_points(base.target, 10).await.unwrap();
    assert_eq!(renamed.len(), 1);
    assert_eq!((renamed[0].id, &renamed[0].entry), (points[2].id, &key("/docs/c.md")));
}

#[tokio::test]
async fn the_point_of_a_chunk_that_is_gone_is_abandoned() {
    let dir = TempDir::new().unwrap();
    let (index, base, points) = with_points(&dir).await;
    index.mirrored(points.iter().map(|point| point.id).collect()).await.unwrap();
    let writes = *index.writes().borrow();
    put(&index, base, "m", "/docs/a.md", "A zebra stands.", meta("a2")).await;
    assert!(*index.writes().borrow() > writes);
    let gone: BTreeSet<_> = index.abandoned_points(base.target, 10).await.unwrap().into_iter().collect();
    assert_eq!(gone, points[..2].iter().map(|point| point.id).collect());
    assert_eq!(index.lacking_points(base.target, 10).await.unwrap().len(), 1);
    index.unmirrored(gone.into_iter().collect()).await.unwrap();
    assert!(index.abandoned_points(base.target, 10).await.unwrap().is_empty());
    // What was lost there is lacking here.
    index.unmirrored(vec![points[2].id]).await.unwrap();
    let lacking = index.lacking_points(base.target, 10).await.unwrap();
    assert!(lacking.iter().any(|point| point.chunk.text == "A walrus swims."), "{lacking:?}");
}

#[tokio::test]
async fn candidates_of_another_store_are_scored_here() {
    let dir = TempDir::new().unwrap();
    let (index, base, points) = with_points(&dir).await;
    index.mirrored(points.iter().map(|point| point.id).collect()).await.unwrap();
    let by_vector = SearchQuery { mode: crate::SearchMode::Vector, ..query("m", "a walrus swims.") };
    let embedded = index.search("handbook", by_vector.clone()).await.unwrap();
    let all: Vec<_> = points.iter().rev().map(|point| point.id).collect();
    let nearest = Some(index.chunks_of_points(&all).await.unwrap());
    let asked = index.search("handbook", SearchQuery { nearest, ..by_vector.clone() }).await.unwrap();
    assert_eq!(asked.passages, embedded.passages);
    // A candidate that is gone is no ghost.
    let nearest = Some(index.chunks_of_points(&all).await.unwrap());
    index.remove(base, vec![key("/docs/b.md")]).await.unwrap();
    let asked = index.search("handbook", SearchQuery { nearest, ..by_vector }).await.unwrap();
    assert!(asked.passages.iter().all(|passage| passage.entry == key("/docs/a.md")), "{asked:?}");
}

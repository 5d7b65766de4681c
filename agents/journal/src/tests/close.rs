//! Closing while others still hold the journal.

use super::*;

#[tokio::test]
async fn other_holders_are_told_that_it_is_closed() {
    let dir = temp();
    let journal = open(dir.path()).await;
    journal.accept(first(id(1), request("?"))).await.unwrap();
    let other = journal.clone();
    journal.close().await;
    let answers = [
        other.accept(first(id(2), request("?"))).await.map(|_| ()),
        other.append(vec![started(id(1), 2)]).await,
        other.events(id(1), Seq(0), 10).await.map(|_| ()),
        other.last(id(1)).await.map(|_| ()),
        other.unfinished().await.map(|_| ()),
        other.list(Filter::default(), ALL).await.map(|_| ()),
        other.catalog(&CatalogVersion::new("c1")).await.map(|_| ()),
        other.retain(Retention::default()).await.map(|_| ()),
    ];
    for (at, answer) in answers.into_iter().enumerate() {
        assert!(matches!(answer, Err(Error::Closed { .. })), "{at}: {answer:?}");
    }
    other.close().await;
    assert_eq!(tasks(&open(dir.path()).await).await, [id(1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn closing_amid_writes_loses_none_that_was_acknowledged() {
    let dir = temp();
    let journal = open(dir.path()).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200 {
        let journal = journal.clone();
        calls.spawn(async move {
            match journal.accept(first(id(number), request("?"))).await {
                Ok(_) => Some(id(number)),
                Err(Error::Closed { .. }) => None,
                Err(other) => panic!("{other:?}"),
            }
        });
    }
    // One answer, so that the others are under way.
    let one = calls.join_next().await.unwrap().unwrap();
    journal.close().await;
    let mut acknowledged: Vec<TaskId> = calls.join_all().await.into_iter().chain([one]).flatten().collect();
    acknowledged.sort();
    let journal = open(dir.path()).await;
    assert_eq!(tasks(&journal).await, acknowledged);
}

#[tokio::test]
async fn the_log_is_folded_into_the_database() {
    let dir = temp();
    let journal = open(dir.path()).await;
    journal.accept(first(id(1), request("?"))).await.unwrap();
    assert!(dir.path().join("journal.sqlite-wal").exists());
    journal.close().await;
    assert!(!dir.path().join("journal.sqlite-wal").exists());
}

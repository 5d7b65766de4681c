//! Closing while other clones still hold the journal.

use super::*;

#[tokio::test]
async fn other_clones_get_the_error_that_it_is_closed() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    journal.accept(first(id(1), spec("?"))).await.unwrap();
    let other = journal.clone();
    journal.close().await;
    let answers = [
        other.accept(first(id(2), spec("?"))).await.map(|_| ()),
        other.append(vec![started(id(1), 2)]).await,
        other.events(id(1), Seq(0), 10).await.map(|_| ()),
        other.last_seq(id(1)).await.map(|_| ()),
        other.unfinished().await.map(|_| ()),
        other.list(TaskFilter::default(), ALL_TASKS).await.map(|_| ()),
        other.catalog(&CatalogVersion::new("c1")).await.map(|_| ()),
        other.prune(Retention::default()).await.map(|_| ()),
    ];
    for (at, answer) in answers.into_iter().enumerate() {
        assert!(matches!(answer, Err(Error::Closed { .. })), "{at}: {answer:?}");
    }
    other.close().await;
    assert_eq!(tasks(&open(dir.path()).await).await, [id(1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn closing_during_writes_loses_no_acknowledged_event() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200 {
        let journal = journal.clone();
        calls.spawn(async move {
            match journal.accept(first(id(number), spec("?"))).await {
                Ok(_) => Some(id(number)),
                Err(Error::Closed { .. }) => None,
                Err(other) => panic!("{other:?}"),
            }
        });
    }
    // After one answer, the other requests are in flight.
    let one = calls.join_next().await.unwrap().unwrap();
    journal.close().await;
    let mut acknowledged: Vec<TaskId> = calls.join_all().await.into_iter().chain([one]).flatten().collect();
    acknowledged.sort();
    let journal = open(dir.path()).await;
    assert_eq!(tasks(&journal).await, acknowledged);
}

#[tokio::test]
async fn closing_checkpoints_the_log_into_the_database() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    journal.accept(first(id(1), spec("?"))).await.unwrap();
    assert!(dir.path().join("journal.sqlite-wal").exists());
    journal.close().await;
    assert!(!dir.path().join("journal.sqlite-wal").exists());
}

//! Tasks that are set aside: neither running nor ended.

use super::*;
use crate::{SetAsideTask, check, repair};

const REASON: &str = "it made no progress in 3 resumes";

fn set_aside(task: TaskId, seq: u64) -> Event {
    event(task, seq, EventKind::SetAside { reason: REASON.to_owned() })
}

async fn status(journal: &Journal, task: TaskId) -> (TaskStatus, Option<Timestamp>) {
    let summary = journal.summary(task).await.unwrap().unwrap().unwrap();
    (summary.status, summary.ended)
}

#[tokio::test]
async fn a_task_is_set_aside_resumed_set_aside_again_and_ends() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let task = id(1);
    assert!(journal.summary(task).await.unwrap().is_none());
    journal.accept(first(task, spec("?"))).await.unwrap();
    journal.accept(first(id(2), spec("?"))).await.unwrap();
    journal.append(vec![started(task, 2), set_aside(task, 3)]).await.unwrap();
    assert_eq!(status(&journal, task).await, (TaskStatus::SetAside, None));
    assert_eq!(journal.unfinished().await.unwrap(), [id(2)]);
    for (wanted, expected) in [(TaskStatus::SetAside, task), (TaskStatus::Running, id(2))] {
        let filter = TaskFilter { statuses: vec![wanted], ..TaskFilter::default() };
        let found: Vec<_> = entries(&journal, filter, ALL_TASKS).await.iter().map(|entry| entry.task).collect();
        assert_eq!(found, [expected]);
    }
    journal.append(vec![event(task, 4, EventKind::Resumed)]).await.unwrap();
    assert_eq!(status(&journal, task).await, (TaskStatus::Running, None));
    assert_eq!(journal.unfinished().await.unwrap(), [task, id(2)]);
    // Both changes are in one transaction.
    let (one, two) = tokio::join!(
        journal.append(vec![started(task, 5), set_aside(task, 6)]),
        journal.append(vec![event(task, 7, EventKind::Resumed)])
    );
    one.unwrap();
    two.unwrap();
    assert_eq!(status(&journal, task).await, (TaskStatus::Running, None));
    journal.append(vec![set_aside(task, 8)]).await.unwrap();
    journal.close().await;

    assert_eq!(check(dir.path()).await.unwrap().unwrap().problems, Vec::<String>::new());
    let listed = crate::set_aside(dir.path()).await.unwrap();
    assert_eq!(listed, [SetAsideTask { task, reason: REASON.to_owned() }]);
    let journal = open(dir.path()).await;
    journal
        .append(vec![event(task, 9, EventKind::Cancelled { reason: "Enough.".to_owned(), partial: Vec::new() })])
        .await
        .unwrap();
    assert_eq!(status(&journal, task).await, (TaskStatus::Cancelled, Some(Timestamp(1009))));
    assert!(matches!(journal.append(vec![started(task, 10)]).await, Err(Error::Ended { .. })));
    journal.close().await;
    assert_eq!(crate::set_aside(dir.path()).await.unwrap(), []);
}

#[tokio::test]
async fn retention_keeps_what_is_set_aside() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    journal.accept(first(id(1), spec("?"))).await.unwrap();
    journal.append(vec![set_aside(id(1), 2)]).await.unwrap();
    finish(&journal, id(2), 1).await;
    let limits = Retention { tasks: 0, age: Duration::ZERO, bytes: 0 };
    assert_eq!(journal.prune(limits).await.unwrap(), 1);
    assert_eq!(tasks(&journal).await, [id(1)]);
}

#[tokio::test]
async fn damaged_open_tasks_are_listed_with_what_to_do() {
    let dir = temp_dir();
    assert_eq!(crate::set_aside(dir.path()).await.unwrap(), []);
    let journal = open(dir.path()).await;
    for number in 1..=4 {
        journal.accept(first(id(number), spec("?"))).await.unwrap();
        journal.append(vec![started(id(number), 2)]).await.unwrap();
    }
    journal.append(vec![completed(id(4), 3)]).await.unwrap();
    journal.close().await;
    tamper(dir.path(), "UPDATE events SET body = CAST(body || x'00' AS BLOB) WHERE last = 1 AND task IN (1, 4)").await;
    tamper(dir.path(), "UPDATE tasks SET stage = 9 WHERE number = 2").await;
    let listed = crate::set_aside(dir.path()).await.unwrap();
    assert_eq!(listed.iter().map(|entry| entry.task).collect::<Vec<_>>(), [id(1), id(2)], "an ended task is none");
    assert!(listed[0].reason.contains("up to 1: wrong checksum"), "{listed:?}");
    assert!(listed.iter().all(|entry| entry.reason.contains("`artel journal repair`")), "{listed:?}");
}

#[tokio::test]
async fn a_repair_keeps_what_is_set_aside_and_notices_a_lost_end() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    for number in 1..=3 {
        journal.accept(first(id(number), spec("?"))).await.unwrap();
        journal.append(vec![started(id(number), 2)]).await.unwrap();
        journal.append(vec![set_aside(id(number), 3)]).await.unwrap();
    }
    journal.close().await;
    tamper(dir.path(), "DELETE FROM events WHERE task = 2 AND last = 3").await;
    tamper(dir.path(), "UPDATE events SET body = x'00' WHERE task = 3 AND last = 2").await;
    let report = repair(dir.path()).await.unwrap().unwrap();
    assert_eq!((report.kept, report.failed, report.lost), (1, vec![id(2), id(3)], Vec::new()));
    let journal = open(dir.path()).await;
    assert_eq!(status(&journal, id(1)).await, (TaskStatus::SetAside, None));
}

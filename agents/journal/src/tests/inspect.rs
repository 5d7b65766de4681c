//! Statistics and the integrity check.

use super::*;
use crate::{check, stats};

/// A journal of two completed tasks and a running one.
async fn three_tasks(dir: &Path) -> Journal {
    let journal = open(dir).await;
    for number in 1..=2 {
        finish(&journal, id(number), 2000).await;
    }
    journal.accept(first(id(3), spec("?"))).await.unwrap();
    journal.append(vec![started(id(3), 2)]).await.unwrap();
    journal
}

#[tokio::test]
async fn a_journal_in_use_has_statistics_and_passes_the_check() {
    let dir = temp_dir();
    let journal = three_tasks(dir.path()).await;
    let stats = stats(dir.path()).await.unwrap().unwrap();
    assert_eq!((stats.running, stats.completed, stats.failed, stats.cancelled), (1, 2, 0, 0));
    assert_eq!((stats.oldest, stats.newest), (Some(Timestamp(1001)), Some(Timestamp(1001))));
    assert_eq!(stats.oldest_running, Some(Timestamp(1001)));
    assert_eq!(stats.format, crate::schema::FORMAT_VERSION);
    assert!(stats.database_bytes > 0 && stats.log_bytes > 0, "{stats:?}");
    let report = check(dir.path()).await.unwrap().unwrap();
    assert_eq!((report.tasks, report.events, report.problems), (3, 6, vec![]));
    journal.close().await;
    assert_eq!(check(dir.path()).await.unwrap().unwrap().events, 6);
}

#[tokio::test]
async fn an_empty_directory_has_no_journal() {
    let dir = temp_dir();
    assert_eq!(stats(dir.path()).await.unwrap(), None);
    assert_eq!(check(dir.path()).await.unwrap(), None);
}

#[tokio::test]
async fn a_check_lists_every_damaged_task() {
    for (sql, expected) in [
        ("DELETE FROM events WHERE task = 3 AND last = 1", "has no event 1"),
        ("DELETE FROM events WHERE task = 3", "has no events"),
        ("UPDATE events SET body = x'0000000000' WHERE task = 3 AND last = 2", "checksum"),
        ("UPDATE tasks SET stage = 1 WHERE number = 3", "another state"),
    ] {
        let dir = temp_dir();
        three_tasks(dir.path()).await.close().await;
        tamper(dir.path(), sql).await;
        let report = check(dir.path()).await.unwrap().unwrap();
        assert_eq!(report.damaged, [id(3)], "{sql}");
        assert!(report.problems[0].contains(expected), "{sql}: {:?}", report.problems);
    }
}

//! Looks from outside.

use super::*;
use crate::{check, survey};

/// Two tasks that have ended, and one that runs.
async fn three(dir: &Path) -> Journal {
    let journal = open(dir).await;
    for number in 1..=2 {
        finish(&journal, id(number), 2000).await;
    }
    journal.accept(first(id(3), request("?"))).await.unwrap();
    journal.append(vec![started(id(3), 2)]).await.unwrap();
    journal
}

#[tokio::test]
async fn a_journal_in_use_is_counted_and_found_whole() {
    let dir = temp();
    let journal = three(dir.path()).await;
    let figures = survey(dir.path()).await.unwrap().unwrap();
    assert_eq!((figures.running, figures.completed, figures.failed, figures.cancelled), (1, 2, 0, 0));
    assert_eq!((figures.oldest, figures.newest), (Some(Timestamp(1001)), Some(Timestamp(1001))));
    assert_eq!(figures.oldest_running, Some(Timestamp(1001)));
    assert_eq!(figures.format, crate::schema::VERSION);
    assert!(figures.bytes > 0 && figures.log > 0, "{figures:?}");
    let report = check(dir.path()).await.unwrap().unwrap();
    assert_eq!((report.tasks, report.events, report.problems), (3, 6, vec![]));
    journal.close().await;
    assert_eq!(check(dir.path()).await.unwrap().unwrap().events, 6);
}

#[tokio::test]
async fn where_there_is_no_journal_there_is_nothing_to_see() {
    let dir = temp();
    assert_eq!(survey(dir.path()).await.unwrap(), None);
    assert_eq!(check(dir.path()).await.unwrap(), None);
}

#[tokio::test]
async fn a_check_names_every_damaged_task() {
    for (sql, what) in [
        ("DELETE FROM events WHERE task = 3 AND last = 1", "has no event 1"),
        ("DELETE FROM events WHERE task = 3", "has no events"),
        ("UPDATE events SET body = x'0000000000' WHERE task = 3 AND last = 2", "checksum"),
        ("UPDATE tasks SET stage = 1 WHERE number = 3", "another state"),
    ] {
        let dir = temp();
        three(dir.path()).await.close().await;
        tamper(dir.path(), sql).await;
        let report = check(dir.path()).await.unwrap().unwrap();
        assert_eq!(report.damaged, [id(3)], "{sql}");
        assert!(report.problems[0].contains(what), "{sql}: {:?}", report.problems);
    }
}

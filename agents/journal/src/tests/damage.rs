//! Damaged files are reported as such, and no wrong event is ever read from them.

use std::fs;
use std::path::PathBuf;

use super::*;

fn database(dir: &Path) -> PathBuf {
    dir.join("journal.sqlite")
}

/// Two hundred tasks of three events, on a hundred pages or so, closed.
async fn filled() -> TempDir {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    for number in 0..200 {
        journal.accept(first(id(number), spec(&"long ".repeat(100)))).await.unwrap();
        journal.append(vec![started(id(number), 2), completed(id(number), 3)]).await.unwrap();
    }
    journal.close().await;
    dir
}

/// Opens a journal and reads all tasks: a task is read correctly or reported as corrupt. Returns the number of corrupt ones.
async fn damaged_reads(dir: &Path) -> usize {
    let journal = match Journal::open(dir, without_retention()).await {
        Ok(journal) => journal,
        Err(Error::Corrupt { .. }) => return usize::MAX,
        Err(other) => panic!("{other:?}"),
    };
    let mut damaged = 0;
    for number in 0..200 {
        let expected =
            [first(id(number), spec(&"long ".repeat(100))), started(id(number), 2), completed(id(number), 3)];
        match journal.events(id(number), Seq(0), 10).await {
            Ok(events) => assert_eq!(events, expected),
            Err(Error::Corrupt { .. }) => damaged += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    damaged
}

#[tokio::test]
async fn an_intact_file_has_no_damage() {
    assert_eq!(damaged_reads(filled().await.path()).await, 0);
}

#[tokio::test]
async fn a_text_file_is_not_a_journal() {
    let dir = temp_dir();
    fs::write(database(dir.path()), "All work and no play. ".repeat(1000)).unwrap();
    let error = Journal::open(dir.path(), without_retention()).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { path, .. } if *path == database(dir.path())), "{error:?}");
    assert!(error.to_string().contains("restore a copy"), "{error}");
}

#[tokio::test]
async fn a_truncated_file_is_damaged() {
    let dir = filled().await;
    let file = fs::OpenOptions::new().write(true).open(database(dir.path())).unwrap();
    let size = file.metadata().unwrap().len();
    assert!(size > 100_000, "{size}");
    file.set_len(size / 2).unwrap();
    assert!(damaged_reads(dir.path()).await > 0);
}

#[tokio::test]
async fn overwritten_pages_are_damaged() {
    let dir = filled().await;
    let mut bytes = fs::read(database(dir.path())).unwrap();
    let half = bytes.len() / 2 / 4096 * 4096;
    bytes[half..half + 8 * 4096].fill(0xa5);
    fs::write(database(dir.path()), bytes).unwrap();
    assert!(damaged_reads(dir.path()).await > 0);
}

#[tokio::test]
async fn a_missing_or_unreadable_event_is_damage() {
    for (sql, expected) in [
        ("DELETE FROM events WHERE last = 2", "has no event 2"),
        ("DELETE FROM events WHERE last = 1", "has no event 1"),
        ("UPDATE events SET body = x'00' WHERE last = 3", "up to 3: truncated"),
        ("UPDATE events SET body = CAST(body || x'00' AS BLOB) WHERE last = 2", "up to 2: wrong checksum"),
        ("UPDATE events SET last = 4 WHERE last = 3", "up to 4: wrong checksum"),
    ] {
        let dir = temp_dir();
        let journal = open(dir.path()).await;
        journal.accept(first(id(1), spec("?"))).await.unwrap();
        journal.append(vec![started(id(1), 2)]).await.unwrap();
        journal.append(vec![started(id(1), 3)]).await.unwrap();
        journal.close().await;
        tamper(dir.path(), sql).await;
        let journal = open(dir.path()).await;
        let error = journal.events(id(1), Seq(0), 10).await.unwrap_err();
        assert!(
            matches!(&error, Error::Corrupt { detail, .. } if detail.to_string().contains(expected)),
            "{sql}: {error:?}"
        );
    }
}

#[tokio::test]
async fn invalid_columns_are_damage_of_one_task() {
    for (sql, is_named) in [
        ("UPDATE tasks SET labels = '[1]' WHERE number = 2", true),
        ("UPDATE tasks SET labels = 'no JSON' WHERE number = 2", true),
        ("UPDATE tasks SET stage = 9 WHERE number = 2", true),
        ("UPDATE tasks SET graph = 'NO NAME' WHERE number = 2", true),
        ("UPDATE tasks SET request = '' WHERE number = 2", true),
        ("UPDATE tasks SET created = -1 WHERE number = 2", true),
        // Nothing can name such a task.
        ("UPDATE tasks SET id = x'00' WHERE number = 2", false),
    ] {
        let dir = temp_dir();
        let journal = open(dir.path()).await;
        for number in 1..=3 {
            let labels = BTreeMap::from([("team".to_owned(), "red".to_owned())]);
            journal.accept(first(id(number), TaskSpec { labels, ..spec("?") })).await.unwrap();
        }
        journal.close().await;
        tamper(dir.path(), sql).await;
        let journal = open(dir.path()).await;
        let listed = journal.list(TaskFilter::default(), ALL_TASKS).await.unwrap();
        let named = listed.iter().map(|entry| entry.as_ref().map_or_else(|damaged| damaged.task, |entry| entry.task));
        let expected = if is_named { vec![id(3), id(2), id(1)] } else { vec![id(3), id(1)] };
        assert_eq!(named.collect::<Vec<_>>(), expected, "{sql}");
        assert_eq!(listed.iter().filter(|entry| entry.is_err()).count(), usize::from(is_named), "{sql}: {listed:?}");
        let labels = BTreeMap::from([("team".to_owned(), "red".to_owned())]);
        let filtered = journal.list(TaskFilter { labels, ..TaskFilter::default() }, ALL_TASKS).await.unwrap();
        assert!(filtered.iter().flatten().count() >= 2, "{sql}: {filtered:?}");
    }
}

/// The refusal is that of the task with the damaged row; the journal goes on for the others.
#[tokio::test]
async fn an_append_to_a_damaged_task_stops_no_other_write() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    for number in 1..=2 {
        journal.accept(first(id(number), spec("?"))).await.unwrap();
    }
    journal.close().await;
    tamper(dir.path(), "UPDATE tasks SET stage = 9 WHERE number = 1").await;
    let journal = open(dir.path()).await;
    assert_eq!(journal.unfinished().await.unwrap(), [id(2)]);
    let (damaged, other) =
        tokio::join!(journal.append(vec![started(id(1), 2)]), journal.append(vec![started(id(2), 2)]));
    assert!(matches!(damaged, Err(Error::Corrupt { .. })), "{damaged:?}");
    other.unwrap();
    journal.append(vec![completed(id(2), 3)]).await.unwrap();
}

/// The state of a database after a failed write is unknown.
#[tokio::test]
async fn after_a_failure_nothing_more_is_written() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    journal.accept(first(id(1), spec("?"))).await.unwrap();
    tamper(dir.path(), "DROP TABLE events").await;
    let error = journal.accept(first(id(2), spec("?"))).await.unwrap_err();
    assert!(matches!(error, Error::Database { .. }), "{error:?}");
    let later = [
        journal.accept(first(id(3), spec("?"))).await.map(|_| ()),
        journal.append(vec![completed(id(1), 2)]).await,
        journal.store_catalog(&CatalogVersion::new("c"), String::new()).await,
        journal.prune(Retention { tasks: 0, age: Duration::ZERO, ..KEEP_ALL }).await.map(|_| ()),
    ];
    for error in later {
        let Err(Error::Failed { cause, .. }) = &error else { panic!("{error:?}") };
        assert!(matches!(**cause, Error::Database { .. }), "{cause:?}");
    }
    assert!(matches!(&*journal.failed().await, Error::Database { .. }));
}

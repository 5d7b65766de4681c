//! Damaged files: they are named as such, and nothing wrong is ever read from them.

use std::fs;
use std::path::PathBuf;

use super::*;

fn database(dir: &Path) -> PathBuf {
    dir.join("journal.sqlite")
}

/// Two hundred tasks of three events, on a hundred pages or so, closed.
async fn filled() -> TempDir {
    let dir = temp();
    let journal = open(dir.path()).await;
    for number in 0..200 {
        journal.accept(first(id(number), request(&"long ".repeat(100)))).await.unwrap();
        journal.append(vec![started(id(number), 2), completed(id(number), 3)]).await.unwrap();
    }
    journal.close().await;
    dir
}

/// Opens and reads everything: what is read is right, and the rest is said to be damaged. Gives how much was.
async fn damaged_reads(dir: &Path) -> usize {
    let journal = match Journal::open(dir, endless()).await {
        Ok(journal) => journal,
        Err(Error::Corrupt { .. }) => return usize::MAX,
        Err(other) => panic!("{other:?}"),
    };
    let mut damaged = 0;
    for number in 0..200 {
        let whole =
            [first(id(number), request(&"long ".repeat(100))), started(id(number), 2), completed(id(number), 3)];
        match journal.events(id(number), Seq(0), 10).await {
            Ok(events) => assert_eq!(events, whole),
            Err(Error::Corrupt { .. }) => damaged += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    damaged
}

#[tokio::test]
async fn a_whole_file_has_no_damage() {
    assert_eq!(damaged_reads(filled().await.path()).await, 0);
}

#[tokio::test]
async fn junk_is_no_journal() {
    let dir = temp();
    fs::write(database(dir.path()), "All work and no play. ".repeat(1000)).unwrap();
    let error = Journal::open(dir.path(), endless()).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { path, .. } if *path == database(dir.path())), "{error:?}");
    assert!(error.to_string().contains("restore a copy"), "{error}");
}

#[tokio::test]
async fn a_file_that_was_cut_is_damaged() {
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
    for (sql, what) in [
        ("DELETE FROM events WHERE last = 2", "has no event 2"),
        ("DELETE FROM events WHERE last = 1", "has no event 1"),
        ("UPDATE events SET body = x'00' WHERE last = 3", "up to 3: they are cut off"),
        ("UPDATE events SET body = CAST(body || x'00' AS BLOB) WHERE last = 2", "up to 2: their checksum is wrong"),
        ("UPDATE events SET last = 4 WHERE last = 3", "up to 4: their checksum is wrong"),
    ] {
        let dir = temp();
        let journal = open(dir.path()).await;
        journal.accept(first(id(1), request("?"))).await.unwrap();
        journal.append(vec![started(id(1), 2)]).await.unwrap();
        journal.append(vec![started(id(1), 3)]).await.unwrap();
        journal.close().await;
        tamper(dir.path(), sql).await;
        let journal = open(dir.path()).await;
        let error = journal.events(id(1), Seq(0), 10).await.unwrap_err();
        assert!(matches!(&error, Error::Corrupt { what: said, .. } if said.contains(what)), "{sql}: {error:?}");
    }
}

#[tokio::test]
async fn bad_columns_are_damage() {
    for sql in [
        "UPDATE tasks SET labels = '[1]'",
        "UPDATE tasks SET stage = 9",
        "UPDATE tasks SET graph = 'NO NAME'",
        "UPDATE tasks SET request = ''",
        "UPDATE tasks SET id = x'00'",
        "UPDATE tasks SET created = -1",
    ] {
        let dir = temp();
        let journal = open(dir.path()).await;
        journal.accept(first(id(1), request("?"))).await.unwrap();
        journal.close().await;
        tamper(dir.path(), sql).await;
        let listed = open(dir.path()).await.list(Filter::default(), ALL).await;
        assert!(matches!(listed, Err(Error::Corrupt { .. })), "{sql}: {listed:?}");
    }
}

/// Nobody can say what a database holds that failed once.
#[tokio::test]
async fn after_a_failure_nothing_more_is_written() {
    let dir = temp();
    let journal = open(dir.path()).await;
    journal.accept(first(id(1), request("?"))).await.unwrap();
    tamper(dir.path(), "DROP TABLE events").await;
    let error = journal.accept(first(id(2), request("?"))).await.unwrap_err();
    assert!(matches!(error, Error::Database { .. }), "{error:?}");
    let later = [
        journal.accept(first(id(3), request("?"))).await.map(|_| ()),
        journal.append(vec![completed(id(1), 2)]).await,
        journal.keep_catalog(&CatalogVersion::new("c"), String::new()).await,
        journal.retain(Retention { tasks: 0, age: Duration::ZERO, ..KEEP }).await.map(|_| ()),
    ];
    for error in later {
        let Err(Error::Broken { cause, .. }) = &error else { panic!("{error:?}") };
        assert!(matches!(**cause, Error::Database { .. }), "{cause:?}");
    }
    assert!(matches!(&*journal.broken().await, Error::Database { .. }));
}

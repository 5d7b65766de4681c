//! Opening a journal: persistence, and the reasons of a refusal.

use std::fs;

use super::*;

async fn refusal(dir: &Path) -> Error {
    Journal::open(dir, without_retention()).await.expect_err("the journal cannot be opened here")
}

#[tokio::test]
async fn everything_is_stored_after_reopening() {
    let dir = temp_dir();
    let home = dir.path().join("deep/below");
    let journal = open(&home).await;
    let all = [first(id(1), spec_with_id("k", "Why?")), started(id(1), 2), started(id(1), 3)];
    journal.accept(all[0].clone()).await.unwrap();
    journal.append(all[1..].to_vec()).await.unwrap();
    journal.store_catalog(&CatalogVersion::new("c1"), "sources".to_owned()).await.unwrap();
    let list = entries(&journal, TaskFilter::default(), ALL_TASKS).await;
    journal.close().await;

    let journal = open(&home).await;
    assert_eq!(replay(&journal, id(1)).await, all);
    assert_eq!(journal.unfinished().await.unwrap(), [id(1)]);
    assert_eq!(entries(&journal, TaskFilter::default(), ALL_TASKS).await, list);
    assert_eq!(journal.catalog(&CatalogVersion::new("c1")).await.unwrap().as_deref(), Some("sources"));
    journal.append(vec![started(id(1), 4)]).await.unwrap();
}

/// The files at any time are what a daemon leaves that is killed at that time.
#[tokio::test]
async fn acknowledged_events_survive_a_kill() {
    let (dir, copy) = (temp_dir(), temp_dir());
    let journal = open(dir.path()).await;
    for number in 0..50 {
        journal.accept(first(id(number), spec("?"))).await.unwrap();
    }
    journal.append(vec![completed(id(7), 2)]).await.unwrap();
    for file in ["journal.sqlite", "journal.sqlite-wal"] {
        fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    let after = open(copy.path()).await;
    assert_eq!(tasks(&after).await, (0..50).map(id).collect::<Vec<_>>());
    assert_eq!(replay(&after, id(7)).await, [first(id(7), spec("?")), completed(id(7), 2)]);
}

#[cfg(unix)]
#[tokio::test]
async fn the_directory_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp_dir();
    let home = dir.path().join("journal");
    let _journal = open(&home).await;
    assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_directory_has_one_journal() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let error = refusal(dir.path()).await;
    assert!(matches!(&error, Error::Locked { path } if path.starts_with(dir.path())), "{error:?}");
    assert!(error.to_string().contains("another daemon"), "{error}");
    journal.accept(first(id(1), spec("?"))).await.unwrap();
    journal.close().await;
    assert_eq!(tasks(&open(dir.path()).await).await, [id(1)]);
}

#[tokio::test]
async fn another_programs_database_is_not_changed() {
    for sql in [
        "CREATE TABLE songs (title TEXT)",
        "CREATE TABLE tasks (id TEXT); PRAGMA user_version = 1",
        "PRAGMA application_id = 7",
        "PRAGMA user_version = 9",
    ] {
        let dir = temp_dir();
        tamper(dir.path(), sql).await;
        let before = fs::read(dir.path().join("journal.sqlite")).unwrap();
        let error = refusal(dir.path()).await;
        assert!(matches!(error, Error::NotAJournal { .. }), "{sql}: {error:?}");
        assert_eq!(fs::read(dir.path().join("journal.sqlite")).unwrap(), before, "{sql}");
    }
}

#[tokio::test]
async fn a_newer_journal_is_not_changed() {
    let dir = temp_dir();
    open(dir.path()).await.close().await;
    tamper(dir.path(), "PRAGMA user_version = 7").await;
    let before = fs::read(dir.path().join("journal.sqlite")).unwrap();
    let error = refusal(dir.path()).await;
    assert!(matches!(error, Error::NewerFormat { found: 7, known: crate::schema::FORMAT_VERSION, .. }), "{error:?}");
    assert!(error.to_string().contains("use the newer program"), "{error}");
    assert_eq!(fs::read(dir.path().join("journal.sqlite")).unwrap(), before);
}

#[tokio::test]
async fn an_empty_file_becomes_a_journal() {
    let dir = temp_dir();
    fs::write(dir.path().join("journal.sqlite"), b"").unwrap();
    let journal = open(dir.path()).await;
    journal.accept(first(id(1), spec("?"))).await.unwrap();
    assert_eq!(tasks(&journal).await, [id(1)]);
}

#[tokio::test]
async fn a_path_that_cannot_be_a_directory_is_refused() {
    let dir = temp_dir();
    let file = dir.path().join("file");
    fs::write(&file, b"text").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = refusal(&path).await;
        assert!(matches!(&error, Error::Directory { path: p, .. } if *p == path), "{error:?}");
    }
    fs::create_dir_all(dir.path().join("taken/journal.lock")).unwrap();
    let error = refusal(&dir.path().join("taken")).await;
    assert!(matches!(error, Error::Directory { .. }), "{error:?}");
    fs::create_dir_all(dir.path().join("held/journal.sqlite")).unwrap();
    let error = refusal(&dir.path().join("held")).await;
    assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_read_only_directory_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp_dir();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(dir.path().join("probe"), b"").is_ok() {
        // Root can write everywhere; the test above covers that case.
        return;
    }
    let error = refusal(dir.path()).await;
    assert!(matches!(error, Error::Directory { .. }), "{error:?}");
}

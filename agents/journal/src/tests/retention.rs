//! Retention: which tasks and catalogs are deleted, and which are kept.

use std::fs;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const UNLIMITED_AGE: Duration = Duration::MAX;

#[tokio::test]
async fn the_tasks_that_ended_first_are_deleted_first() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    // The later a task started, the earlier it ended.
    for number in 0..6 {
        finish(&journal, id(number), 10_000 - number).await;
    }
    journal.accept(first(id(6), spec("?"))).await.unwrap();
    let deleted = journal.prune(Retention { tasks: 2, age: UNLIMITED_AGE, ..KEEP_ALL }).await.unwrap();
    assert_eq!(deleted, 4);
    assert_eq!(tasks(&journal).await, [id(0), id(1), id(6)]);
    assert_eq!(replay(&journal, id(5)).await, []);
    assert_eq!(journal.last_seq(id(5)).await.unwrap(), None);
    let mut conn = raw_connection(dir.path()).await;
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&mut conn).await.unwrap();
    assert_eq!(events, 5);
    assert_eq!(journal.prune(Retention { tasks: 2, age: UNLIMITED_AGE, ..KEEP_ALL }).await.unwrap(), 0);
}

#[tokio::test]
async fn old_tasks_are_deleted_and_running_ones_are_kept() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let hour = Duration::from_secs(3600);
    let now = unix_millis();
    finish(&journal, id(0), 1000).await;
    finish(&journal, id(1), now - 2 * 3_600_000).await;
    finish(&journal, id(2), now).await;
    // It started long ago and is still running.
    journal.accept(first(id(3), spec("?"))).await.unwrap();
    assert_eq!(journal.prune(Retention { tasks: u64::MAX, age: 3 * hour, ..KEEP_ALL }).await.unwrap(), 1);
    assert_eq!(tasks(&journal).await, [id(1), id(2), id(3)]);
    assert_eq!(journal.prune(Retention { tasks: u64::MAX, age: hour, ..KEEP_ALL }).await.unwrap(), 1);
    assert_eq!(tasks(&journal).await, [id(2), id(3)]);
    assert_eq!(journal.prune(Retention { tasks: 0, age: Duration::ZERO, ..KEEP_ALL }).await.unwrap(), 1);
    assert_eq!(tasks(&journal).await, [id(3)]);
    assert_eq!(journal.unfinished().await.unwrap(), [id(3)]);
}

/// The wall clock is set by a person or by the network: only the age at the moment of retention counts.
#[tokio::test]
async fn ages_follow_the_clock_of_the_journal_and_one_set_back_deletes_nothing() {
    const HOUR_MS: u64 = 3_600_000;
    let dir = temp_dir();
    let wall_ms = Arc::new(AtomicU64::new(10 * HOUR_MS));
    let clock = Clock::new({
        let wall_ms = wall_ms.clone();
        move || Timestamp(wall_ms.load(Ordering::SeqCst))
    });
    let journal = Journal::open(dir.path(), Options { clock, ..without_retention() }).await.unwrap();
    let limits = Retention { age: Duration::from_millis(HOUR_MS), ..KEEP_ALL };
    finish(&journal, id(0), 10 * HOUR_MS).await;
    for (hours, deleted) in [(10, 0), (1, 0), (11, 0), (12, 1)] {
        wall_ms.store(hours * HOUR_MS, Ordering::SeqCst);
        assert_eq!(journal.prune(limits).await.unwrap(), deleted, "at {hours} o'clock");
    }
}

#[tokio::test]
async fn one_call_deletes_more_tasks_than_one_transaction() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let count = 2 * crate::write::PRUNE_TASKS + 1;
    let accepted = (0..count).map(|number| journal.accept(first(id(number), spec("?"))));
    await_all(accepted).await;
    await_all((0..count).map(|number| journal.append(vec![completed(id(number), 2)]))).await;
    assert_eq!(journal.prune(Retention { tasks: 0, age: UNLIMITED_AGE, ..KEEP_ALL }).await.unwrap(), count);
    assert_eq!(tasks(&journal).await, []);
}

/// Awaits calls one after the other; all must succeed.
async fn await_all<T>(calls: impl Iterator<Item = impl Future<Output = Result<T, Error>>>) {
    for call in calls {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn a_request_id_is_free_again_once_its_task_is_deleted() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    journal.accept(first(id(1), spec_with_id("k", "Why?"))).await.unwrap();
    journal.append(vec![completed(id(1), 2)]).await.unwrap();
    journal.prune(Retention { tasks: 0, age: UNLIMITED_AGE, ..KEEP_ALL }).await.unwrap();
    assert_eq!(journal.accept(first(id(2), spec_with_id("k", "What?"))).await.unwrap(), Acceptance::New);
}

#[tokio::test]
async fn retention_runs_automatically() {
    let dir = temp_dir();
    let retention = Retention { tasks: 1, age: UNLIMITED_AGE, ..KEEP_ALL };
    let mut options = without_retention();
    (options.retention, options.prune_interval_tasks) = (retention, NonZeroU32::new(3).unwrap());
    let journal = Journal::open(dir.path(), options.clone()).await.unwrap();
    // The first retention has ended once a first write is answered.
    journal.store_catalog(&CatalogVersion::new("c1"), "one".to_owned()).await.unwrap();
    for number in 0..2 {
        finish(&journal, id(number), 1000 + number).await;
    }
    assert_eq!(tasks(&journal).await, [id(0), id(1)]);
    finish(&journal, id(2), 1002).await;
    // The writer runs retention before it takes this.
    journal.append(Vec::new()).await.unwrap();
    assert_eq!(tasks(&journal).await, [id(2)]);

    finish(&journal, id(3), 1003).await;
    journal.close().await;
    let journal = Journal::open(dir.path(), options).await.unwrap();
    for _before_and_after in 0..2 {
        journal.append(Vec::new()).await.unwrap();
    }
    assert_eq!(tasks(&journal).await, [id(3)]);
}

#[tokio::test]
async fn catalogs_are_kept_while_tasks_refer_to_them() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let version = |name: &str| CatalogVersion::new(name);
    for name in ["used", "stale", "fresh", "newest"] {
        journal.store_catalog(&version(name), format!("sources of {name}")).await.unwrap();
    }
    let accepted = TaskSpec { catalog: version("used"), ..spec("?") };
    journal.accept(first(id(1), accepted)).await.unwrap();
    journal.close().await;
    tamper(dir.path(), "UPDATE catalogs SET kept = 7 WHERE version IN ('used', 'stale')").await;
    let journal = open(dir.path()).await;
    let none = Retention { tasks: 0, age: Duration::ZERO, ..KEEP_ALL };
    journal.prune(none).await.unwrap();
    for (name, kept) in [("used", true), ("stale", false), ("fresh", true), ("newest", true), ("unknown", false)] {
        let sources = journal.catalog(&version(name)).await.unwrap();
        assert_eq!(sources, kept.then(|| format!("sources of {name}")), "{name}");
    }
    journal.append(vec![completed(id(1), 2)]).await.unwrap();
    journal.prune(none).await.unwrap();
    assert_eq!(journal.catalog(&version("used")).await.unwrap(), None);
}

#[tokio::test]
async fn the_newest_catalog_is_kept_at_any_age() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    journal.store_catalog(&CatalogVersion::new("c1"), "one".to_owned()).await.unwrap();
    journal.store_catalog(&CatalogVersion::new("c1"), "one, stored again".to_owned()).await.unwrap();
    journal.close().await;
    tamper(dir.path(), "UPDATE catalogs SET kept = 7").await;
    let journal = open(dir.path()).await;
    journal.prune(Retention { tasks: 0, age: Duration::ZERO, ..KEEP_ALL }).await.unwrap();
    assert_eq!(journal.catalog(&CatalogVersion::new("c1")).await.unwrap().as_deref(), Some("one"));
}

/// Tasks of some kilobytes, one after the other: the file size is bounded by the kept tasks.
#[tokio::test]
async fn the_file_stays_flat_under_many_tasks() {
    let dir = temp_dir();
    let mut options = without_retention();
    options.retention = Retention { tasks: 100, ..KEEP_ALL };
    options.prune_interval_tasks = NonZeroU32::new(64).unwrap();
    let journal = Journal::open(dir.path(), options).await.unwrap();
    let mut largest = [0; 4];
    for number in 0..4000 {
        let accepted = journal.accept(first(id(number), spec(&format!("{number} ").repeat(400))));
        let (accepted, ended) = tokio::join!(accepted, journal.append(vec![ended_at(id(number), 2, number)]));
        (accepted.unwrap(), ended).1.unwrap();
        let size = fs::metadata(dir.path().join("journal.sqlite")).unwrap().len();
        let quarter = &mut largest[usize::try_from(number / 1000).unwrap()];
        *quarter = size.max(*quarter);
    }
    assert!(tasks(&journal).await.len() <= 100 + 64 + 1);
    assert!(largest[3] <= largest[0] + largest[0] / 10, "{largest:?}");
}

#[tokio::test]
async fn the_size_is_limited_and_free_pages_are_returned() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    for number in 0..1500 {
        let accepted = journal.accept(first(id(number), spec(&"long ".repeat(500))));
        let (accepted, ended) = tokio::join!(accepted, journal.append(vec![ended_at(id(number), 2, number)]));
        (accepted.unwrap(), ended).1.unwrap();
    }
    journal.accept(first(id(5000), spec("It runs."))).await.unwrap();
    journal.close().await;
    let size = || fs::metadata(dir.path().join("journal.sqlite")).unwrap().len();
    let before = size();
    assert!(before > 4_000_000, "{before}");
    let mut options = without_retention();
    options.retention = Retention { bytes: 1_000_000, ..KEEP_ALL };
    let journal = Journal::open(dir.path(), options).await.unwrap();
    // Retention runs in steps between writes.
    for _step in 0..40 {
        journal.append(Vec::new()).await.unwrap();
    }
    let kept = tasks(&journal).await;
    assert!(kept.len() > 100 && kept.len() < 500 && kept.last() == Some(&id(5000)), "{}", kept.len());
    journal.close().await;
    assert!(size() < before * 2 / 3, "{} of {before}", size());
}

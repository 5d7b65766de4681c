//! What is deleted, and what never is.

use std::num::NonZeroU32;

use super::*;

const FOR_EVER: Duration = Duration::MAX;

#[tokio::test]
async fn the_tasks_that_ended_first_go_first() {
    let dir = temp();
    let journal = open(dir.path()).await;
    // The later a task began, the earlier it ended.
    for number in 0..6 {
        finish(&journal, id(number), 10_000 - number).await;
    }
    journal.accept(first(id(6), request("?"))).await.unwrap();
    let deleted = journal.retain(Retention { tasks: 2, age: FOR_EVER }).await.unwrap();
    assert_eq!(deleted, 4);
    assert_eq!(tasks(&journal).await, [id(0), id(1), id(6)]);
    assert_eq!(replay(&journal, id(5)).await, []);
    assert_eq!(journal.last(id(5)).await.unwrap(), None);
    let mut conn = raw(dir.path()).await;
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&mut conn).await.unwrap();
    assert_eq!(events, 5);
    assert_eq!(journal.retain(Retention { tasks: 2, age: FOR_EVER }).await.unwrap(), 0);
}

#[tokio::test]
async fn old_tasks_go_and_running_ones_stay() {
    let dir = temp();
    let journal = open(dir.path()).await;
    let hour = Duration::from_secs(3600);
    let now = unix_millis();
    finish(&journal, id(0), 1000).await;
    finish(&journal, id(1), now - 2 * 3_600_000).await;
    finish(&journal, id(2), now).await;
    // It began long ago, and nobody has ended it.
    journal.accept(first(id(3), request("?"))).await.unwrap();
    assert_eq!(journal.retain(Retention { tasks: u64::MAX, age: 3 * hour }).await.unwrap(), 1);
    assert_eq!(tasks(&journal).await, [id(1), id(2), id(3)]);
    assert_eq!(journal.retain(Retention { tasks: u64::MAX, age: hour }).await.unwrap(), 1);
    assert_eq!(tasks(&journal).await, [id(2), id(3)]);
    assert_eq!(journal.retain(Retention { tasks: 0, age: Duration::ZERO }).await.unwrap(), 1);
    assert_eq!(tasks(&journal).await, [id(3)]);
    assert_eq!(journal.unfinished().await.unwrap(), [id(3)]);
}

#[tokio::test]
async fn more_than_one_transaction_of_tasks_goes_in_one_call() {
    let dir = temp();
    let journal = open(dir.path()).await;
    let count = 2 * crate::write::PRUNE + 1;
    let accepted = (0..count).map(|number| journal.accept(first(id(number), request("?"))));
    futures(accepted).await;
    futures((0..count).map(|number| journal.append(vec![completed(id(number), 2)]))).await;
    assert_eq!(journal.retain(Retention { tasks: 0, age: FOR_EVER }).await.unwrap(), count);
    assert_eq!(tasks(&journal).await, []);
}

/// Awaits one after the other, and expects all to be well.
async fn futures<T>(calls: impl Iterator<Item = impl Future<Output = Result<T, Error>>>) {
    for call in calls {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn a_request_id_is_free_again_once_its_task_is_gone() {
    let dir = temp();
    let journal = open(dir.path()).await;
    journal.accept(first(id(1), keyed("k", "Why?"))).await.unwrap();
    journal.append(vec![completed(id(1), 2)]).await.unwrap();
    journal.retain(Retention { tasks: 0, age: FOR_EVER }).await.unwrap();
    assert_eq!(journal.accept(first(id(2), keyed("k", "What?"))).await.unwrap(), Acceptance::New);
}

#[tokio::test]
async fn the_journal_tidies_by_itself() {
    let dir = temp();
    let retention = Retention { tasks: 1, age: FOR_EVER };
    let mut options = endless();
    (options.retention, options.retain_every) = (retention, NonZeroU32::new(3).unwrap());
    let journal = Journal::open(dir.path(), options.clone()).await.unwrap();
    // The tidying of the beginning is over once a first write is answered.
    journal.keep_catalog(&CatalogVersion::new("c1"), "one".to_owned()).await.unwrap();
    for number in 0..2 {
        finish(&journal, id(number), 1000 + number).await;
    }
    assert_eq!(tasks(&journal).await, [id(0), id(1)]);
    finish(&journal, id(2), 1002).await;
    // The writer tidies before it takes this.
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
async fn catalogs_stay_while_tasks_name_them() {
    let dir = temp();
    let journal = open(dir.path()).await;
    let version = |name: &str| CatalogVersion::new(name);
    for name in ["used", "stale", "fresh", "newest"] {
        journal.keep_catalog(&version(name), format!("sources of {name}")).await.unwrap();
    }
    let accepted = Accepted { catalog: version("used"), ..request("?") };
    journal.accept(first(id(1), accepted)).await.unwrap();
    journal.close().await;
    tamper(dir.path(), "UPDATE catalogs SET kept = 7 WHERE version IN ('used', 'stale')").await;
    let journal = open(dir.path()).await;
    let none = Retention { tasks: 0, age: Duration::ZERO };
    journal.retain(none).await.unwrap();
    for (name, kept) in [("used", true), ("stale", false), ("fresh", true), ("newest", true), ("unknown", false)] {
        let sources = journal.catalog(&version(name)).await.unwrap();
        assert_eq!(sources, kept.then(|| format!("sources of {name}")), "{name}");
    }
    journal.append(vec![completed(id(1), 2)]).await.unwrap();
    journal.retain(none).await.unwrap();
    assert_eq!(journal.catalog(&version("used")).await.unwrap(), None);
}

#[tokio::test]
async fn the_newest_catalog_stays_however_old() {
    let dir = temp();
    let journal = open(dir.path()).await;
    journal.keep_catalog(&CatalogVersion::new("c1"), "one".to_owned()).await.unwrap();
    journal.keep_catalog(&CatalogVersion::new("c1"), "one, said again".to_owned()).await.unwrap();
    journal.close().await;
    tamper(dir.path(), "UPDATE catalogs SET kept = 7").await;
    let journal = open(dir.path()).await;
    journal.retain(Retention { tasks: 0, age: Duration::ZERO }).await.unwrap();
    assert_eq!(journal.catalog(&CatalogVersion::new("c1")).await.unwrap().as_deref(), Some("one"));
}

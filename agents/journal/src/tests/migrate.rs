//! The migration of a journal of format 1.

use super::*;

const FORMAT_1: &str = "
    CREATE TABLE tasks (
        id BLOB PRIMARY KEY, graph TEXT NOT NULL, role TEXT, stage INTEGER NOT NULL, created INTEGER NOT NULL,
        ended INTEGER, head TEXT NOT NULL, catalog TEXT NOT NULL, request TEXT, labels TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX tasks_request ON tasks (request) WHERE request IS NOT NULL;
    CREATE INDEX tasks_running ON tasks (id) WHERE ended IS NULL;
    CREATE INDEX tasks_ended ON tasks (ended, id) WHERE ended IS NOT NULL;
    CREATE TABLE events (
        task BLOB NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (task, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE catalogs (version TEXT PRIMARY KEY, sources TEXT NOT NULL, kept INTEGER NOT NULL) STRICT;
    PRAGMA application_id = 0x4152544c;
    PRAGMA user_version = 1;
    PRAGMA journal_mode = WAL;
";

/// Two tasks: an ended one with many events, and a running one with a long input.
fn old_tasks() -> [Vec<Event>; 2] {
    let mut long = vec![first(id(1), spec_with_id("k", "Why?"))];
    long.extend((2..=150).map(|seq| started(id(1), seq)));
    long.push(completed(id(1), 151));
    [long, vec![first(id(2), spec(&"long ".repeat(100)))]]
}

async fn create_old(dir: &Path) {
    let mut conn = raw_connection(dir).await;
    sqlx::raw_sql(FORMAT_1).execute(&mut conn).await.unwrap();
    sqlx::raw_sql("INSERT INTO catalogs VALUES ('c1', 'sources', 7)").execute(&mut conn).await.unwrap();
    for events in old_tasks() {
        let EventKind::Accepted(spec) = &events[0].kind else { panic!("the first event is `accepted`") };
        let ended = events.last().filter(|event| event.kind.is_last());
        sqlx::query("INSERT INTO tasks VALUES (?, 'mentor', NULL, ?, ?, ?, ?, 'c1', ?, '{}')")
            .bind(events[0].task.as_bytes().as_slice())
            .bind(ended.map_or(0, |event| TaskStatus::after(&event.kind).code()))
            .bind(events[0].at.0.cast_signed())
            .bind(ended.map(|event| event.at.0.cast_signed()))
            .bind(spec.input.chars().take(TaskSummary::HEAD_CHARS).collect::<String>())
            .bind(spec.request.as_ref().map(RequestId::as_str))
            .execute(&mut conn)
            .await
            .unwrap();
        for event in events {
            sqlx::query("INSERT INTO events VALUES (?, ?, ?, ?)")
                .bind(event.task.as_bytes().as_slice())
                .bind(event.seq.0.cast_signed())
                .bind(event.at.0.cast_signed())
                .bind(serde_json::to_string(&event.kind).unwrap())
                .execute(&mut conn)
                .await
                .unwrap();
        }
    }
    conn.close().await.unwrap();
}

#[tokio::test]
async fn an_old_journal_is_migrated() {
    let dir = temp_dir();
    create_old(dir.path()).await;
    let journal = open(dir.path()).await;
    let [long, short] = old_tasks();
    assert_eq!(replay(&journal, id(1)).await, long);
    assert_eq!(journal.events(id(1), Seq(99), 10).await.unwrap(), long[99..109]);
    assert_eq!(replay(&journal, id(2)).await, short);
    assert_eq!(journal.unfinished().await.unwrap(), [id(2)]);
    assert_eq!(journal.catalog(&CatalogVersion::new("c1")).await.unwrap().as_deref(), Some("sources"));
    let list = entries(&journal, TaskFilter::default(), ALL_TASKS).await;
    assert!(list.iter().all(|task| task.owner.is_owner()));
    let heads: Vec<(usize, Seq)> = list.iter().map(|task| (task.input_head.len(), task.last_seq)).collect();
    assert_eq!(heads, [(200, Seq(1)), (4, Seq(151))]);
    assert_eq!(journal.accept(first(id(3), spec_with_id("k", "Why?"))).await.unwrap(), Acceptance::Existing(id(1)));
    journal.append(vec![completed(id(2), 2)]).await.unwrap();
    journal.close().await;

    let mut conn = raw_connection(dir.path()).await;
    let vacuum: i64 = sqlx::query_scalar("PRAGMA auto_vacuum").fetch_one(&mut conn).await.unwrap();
    assert_eq!(vacuum, 2, "a migrated file can shrink too");
    assert_eq!(tasks(&open(dir.path()).await).await, [id(1), id(2)]);
}

/// A journal of this format as one of format 2.
const TO_FORMAT_2: &str = "
    DROP INDEX tasks_owner;
    DROP INDEX tasks_request;
    ALTER TABLE tasks DROP COLUMN owner;
    ALTER TABLE tasks DROP COLUMN erased;
    CREATE UNIQUE INDEX tasks_request ON tasks (request) WHERE request IS NOT NULL;
    DROP TABLE erasures;
    PRAGMA user_version = 2;
";

/// The indexes and tables of a journal.
async fn schema(dir: &Path) -> Vec<(String, Option<String>)> {
    let mut conn = raw_connection(dir).await;
    let rows = sqlx::query_as("SELECT name, CASE type WHEN 'index' THEN sql END FROM sqlite_schema ORDER BY name");
    rows.fetch_all(&mut conn).await.unwrap()
}

#[tokio::test]
async fn the_tasks_of_a_journal_without_owners_belong_to_the_user_whose_daemon_it_is() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let [long, short] = old_tasks();
    for events in [&long, &short] {
        journal.accept(events[0].clone()).await.unwrap();
        journal.append(events[1..].to_vec()).await.unwrap();
    }
    journal.close().await;
    let expected = schema(dir.path()).await;
    tamper(dir.path(), TO_FORMAT_2).await;

    let journal = open(dir.path()).await;
    assert_eq!(replay(&journal, id(1)).await, long);
    let list = entries(&journal, TaskFilter::default(), ALL_TASKS).await;
    assert!(list.len() == 2 && list.iter().all(|task| task.owner.is_owner()), "{list:?}");
    let filter = TaskFilter { owner: Some(CallerName::owner()), ..TaskFilter::default() };
    assert_eq!(entries(&journal, filter, ALL_TASKS).await, list);
    let key = RequestId::parse("k").unwrap();
    assert!(journal.find_request(&CallerName::owner(), &key).await.unwrap().is_some());
    let bob = TaskSpec { owner: CallerName::parse("bob").unwrap(), ..spec_with_id("k", "Why?") };
    assert_eq!(journal.accept(first(id(3), bob)).await.unwrap(), Acceptance::New);
    journal.close().await;
    assert_eq!(schema(dir.path()).await, expected, "it is migrated to what a new journal has");
}

#[tokio::test]
async fn a_damaged_old_journal_is_not_changed() {
    let dir = temp_dir();
    create_old(dir.path()).await;
    tamper(dir.path(), "DELETE FROM events WHERE seq = 70").await;
    let refused = Journal::open(dir.path(), without_retention()).await;
    assert!(
        matches!(&refused, Err(Error::Corrupt { detail, .. }) if detail.to_string().contains("has no event 70")),
        "{refused:?}"
    );
    let mut conn = raw_connection(dir.path()).await;
    let kept: (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM events), (SELECT user_version FROM pragma_user_version)")
            .fetch_one(&mut conn)
            .await
            .unwrap();
    assert_eq!(kept, (151, 1));
}

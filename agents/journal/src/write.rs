//! What one request does inside the writer's transaction. Each function looks first and writes afterwards, so that a
//! refused request leaves nothing behind in a transaction that goes on with others.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use artel_task::event::Accepted;
use artel_task::{CatalogVersion, Event, Kind, RequestId, Seq, TaskId};
use sqlx::sqlite::SqliteConnection;

use crate::codec::{Stored, encode, labels};
use crate::{Acceptance, Error, Retention, Stage, Summary, read};

/// How many tasks one transaction deletes at most, so that retention never holds up the others for long.
pub(crate) const PRUNE: u64 = 128;

/// A catalog that no task names is kept for this long after it was last in use: somebody may be about to submit.
const CATALOG_GRACE: Duration = Duration::from_secs(3600);

/// Why a request has no result: it alone is refused, or the whole transaction is lost.
pub(crate) enum Stop {
    Refused(Error),
    Failed(sqlx::Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error)
    }
}

pub(crate) async fn accept(
    conn: &mut SqliteConnection,
    path: &Path,
    event: &Event,
    more: &[Event],
) -> Result<Acceptance, Stop> {
    let Kind::Accepted(accepted) = &event.kind else {
        return Err(misplaced(event, "a task begins with `accepted`").into());
    };
    if let Some(request) = &accepted.request
        && let Some(known) = find_request(conn, path, request, accepted).await?
    {
        return Ok(Acceptance::Known(known));
    }
    let last = newest(conn, event.task).await?.map_or(0, |(_, last)| last);
    expect_next(event, last)?;
    let stored = encode(event)?;
    let more = encode_begun(event, more)?;
    insert_task(conn, event, accepted, stored.at).await?;
    for (seq, stored) in (1..).zip(std::iter::once(stored).chain(more)) {
        insert_event(conn, event.task, seq, stored).await?;
    }
    Ok(Acceptance::New)
}

/// What a task begins with beside its first event, which does not end it.
fn encode_begun(first: &Event, more: &[Event]) -> Result<Vec<Stored>, Error> {
    match more.iter().find(|event| event.task != first.task || event.kind.is_last()) {
        Some(odd) => Err(misplaced(odd, "a task begins with events of its own, and not with its end")),
        None => encode_run(more, 1),
    }
}

/// The task with this request id, which must have asked for the same.
async fn find_request(
    conn: &mut SqliteConnection,
    path: &Path,
    request: &RequestId,
    accepted: &Accepted,
) -> Result<Option<TaskId>, Stop> {
    let Some(row) = read::request_row(conn, request).await? else { return Ok(None) };
    let (task, earlier) = read::request_of(path, row)?;
    if asks_the_same(&earlier, accepted) {
        Ok(Some(task))
    } else {
        Err(Error::RequestReused { request: request.clone(), task }.into())
    }
}

/// Whatever the client chose counts; the catalog is whichever held at the time.
fn asks_the_same(one: &Accepted, other: &Accepted) -> bool {
    let Accepted { graph, role, input, class, labels, forked, catalog: _, request: _ } = one;
    (graph, role, input, class, labels, forked)
        == (&other.graph, &other.role, &other.input, &other.class, &other.labels, &other.forked)
}

pub(crate) async fn append(conn: &mut SqliteConnection, events: &[Event]) -> Result<Option<Stage>, Stop> {
    let Some(first) = events.first() else { return Ok(None) };
    let task = first.task;
    let (stage, last) = newest(conn, task).await?.ok_or(Error::NoTask { task })?;
    if stage != Stage::Running.code() {
        return Err(Error::Ended { task }.into());
    }
    let rows = encode_run(events, last)?;
    for (seq, stored) in (last + 1..).zip(rows) {
        insert_event(conn, task, seq, stored).await?;
    }
    let Some(end) = events.last().filter(|event| event.kind.is_last()) else { return Ok(None) };
    let stage = Stage::after(&end.kind);
    end_task(conn, end, stage).await?;
    Ok(Some(stage))
}

/// Events of one task, without a gap after `last`, of which at most the last one ends it.
fn encode_run(events: &[Event], last: i64) -> Result<Vec<Stored>, Error> {
    let mut rows = Vec::with_capacity(events.len());
    let mut ended = false;
    for (event, last) in events.iter().zip(last..) {
        if event.task != events[0].task {
            return Err(misplaced(event, "events of several tasks in one append"));
        }
        if matches!(event.kind, Kind::Accepted(_)) {
            return Err(misplaced(event, "a task is accepted once, as its first event"));
        }
        if ended {
            return Err(Error::Ended { task: event.task });
        }
        expect_next(event, last)?;
        ended = event.kind.is_last();
        rows.push(encode(event)?);
    }
    Ok(rows)
}

fn misplaced(event: &Event, why: &str) -> Error {
    Error::Unstorable { task: event.task, seq: event.seq, why: why.to_owned() }
}

fn expect_next(event: &Event, last: i64) -> Result<(), Error> {
    let expected = Seq(last.unsigned_abs()).next();
    if event.seq == expected { Ok(()) } else { Err(Error::Gap { task: event.task, expected, found: event.seq }) }
}

/// The stage and the newest number of a task.
async fn newest(conn: &mut SqliteConnection, task: TaskId) -> sqlx::Result<Option<(i64, i64)>> {
    sqlx::query_as("SELECT stage, (SELECT max(seq) FROM events WHERE task = t.id) FROM tasks t WHERE id = ?")
        .bind(task.as_bytes().as_slice())
        .fetch_optional(conn)
        .await
}

async fn insert_task(conn: &mut SqliteConnection, event: &Event, accepted: &Accepted, at: i64) -> sqlx::Result<()> {
    let head: String = accepted.input.chars().take(Summary::HEAD_CHARS).collect();
    sqlx::query(
        "INSERT INTO tasks (id, graph, role, stage, created, head, catalog, request, labels)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(event.task.as_bytes().as_slice())
    .bind(accepted.graph.as_str())
    .bind(accepted.role.as_ref().map(|role| role.as_str()))
    .bind(Stage::Running.code())
    .bind(at)
    .bind(head)
    .bind(accepted.catalog.as_str())
    .bind(accepted.request.as_ref().map(RequestId::as_str))
    .bind(labels(&accepted.labels))
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert_event(conn: &mut SqliteConnection, task: TaskId, seq: i64, stored: Stored) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO events (task, seq, at, body) VALUES (?, ?, ?, ?)")
        .bind(task.as_bytes().as_slice())
        .bind(seq)
        .bind(stored.at)
        .bind(stored.body)
        .execute(conn)
        .await?;
    Ok(())
}

async fn end_task(conn: &mut SqliteConnection, end: &Event, stage: Stage) -> sqlx::Result<()> {
    sqlx::query("UPDATE tasks SET stage = ?, ended = ? WHERE id = ?")
        .bind(stage.code())
        .bind(saturating(end.at.0))
        .bind(end.task.as_bytes().as_slice())
        .execute(conn)
        .await?;
    Ok(())
}

pub(crate) async fn keep_catalog(
    conn: &mut SqliteConnection,
    version: &CatalogVersion,
    sources: &str,
) -> Result<(), Stop> {
    sqlx::query(
        "INSERT INTO catalogs (version, sources, kept) VALUES (?, ?, ?)
         ON CONFLICT (version) DO UPDATE SET kept = excluded.kept",
    )
    .bind(version.as_str())
    .bind(sources)
    .bind(now())
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes up to [`PRUNE`] ended tasks that are too many or too old, and gives their number; fewer means that was all.
pub(crate) async fn prune(conn: &mut SqliteConnection, limits: Retention) -> Result<u64, Stop> {
    let cutoff = now().saturating_sub(millis(limits.age));
    let (ended, aged): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM tasks WHERE ended IS NOT NULL), (SELECT count(*) FROM tasks WHERE ended < ?)",
    )
    .bind(cutoff)
    .fetch_one(&mut *conn)
    .await?;
    let excess = ended.unsigned_abs().saturating_sub(limits.tasks);
    let delete = excess.max(aged.unsigned_abs()).min(PRUNE);
    if delete > 0 {
        delete_oldest(conn, delete).await?;
    }
    if delete < PRUNE {
        delete_catalogs(conn).await?;
    }
    Ok(delete)
}

/// Both statements choose the same tasks, since the first one leaves `tasks` alone.
async fn delete_oldest(conn: &mut SqliteConnection, count: u64) -> sqlx::Result<()> {
    for sql in [
        "DELETE FROM events WHERE task IN (SELECT id FROM tasks WHERE ended IS NOT NULL ORDER BY ended, id LIMIT ?)",
        "DELETE FROM tasks WHERE id IN (SELECT id FROM tasks WHERE ended IS NOT NULL ORDER BY ended, id LIMIT ?)",
    ] {
        sqlx::query(sql).bind(saturating(count)).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Deletes the catalogs that no task names, but for the newest one and those that were in use a moment ago.
async fn delete_catalogs(conn: &mut SqliteConnection) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM catalogs WHERE kept < ? AND kept < (SELECT max(kept) FROM catalogs)
         AND version NOT IN (SELECT catalog FROM tasks)",
    )
    .bind(now().saturating_sub(millis(CATALOG_GRACE)))
    .execute(conn)
    .await?;
    Ok(())
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn saturating(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

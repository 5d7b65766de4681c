//! The queries of readers, each answered from one snapshot.

use std::path::Path;

use artel_task::event::{TaskSpec, Timestamp};
use artel_task::{CallerName, CatalogVersion, Event, EventKind, GraphName, RequestId, RoleName, Seq, TaskId};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row, SqliteExecutor, sqlite::Sqlite};

use crate::codec::{corrupt, decode, labels, task_id};
use crate::erase::Erasure;
use crate::{Damage, DamagedTask, Error, TaskFilter, TaskPage, TaskStatus, TaskSummary};

pub(crate) async fn events(
    pool: &SqlitePool,
    path: &Path,
    task: TaskId,
    after: Seq,
    limit: u32,
) -> Result<Vec<Event>, Error> {
    let after_column = i64::try_from(after.0).unwrap_or(i64::MAX);
    // Each row has at least one event, so that `limit` rows are enough.
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT e.last, e.body FROM tasks t JOIN events e ON e.task = t.number
         WHERE t.id = ? AND e.last > ? ORDER BY e.last LIMIT ?",
    )
    .bind(task.as_bytes().as_slice())
    .bind(after_column)
    .bind(limit)
    .fetch_all(pool)
    .await
    .map_err(|e| Error::database(path, e))?;
    let mut events = Vec::new();
    let mut expected = None;
    for (last, body) in rows {
        if events.len() >= limit as usize {
            break;
        }
        let row = decode(path, task, last, &body)?;
        let first = row.first().map_or(0, |event| event.seq.0);
        // The first row may start with events up to `after`.
        let next = expected.unwrap_or_else(|| first.min(after.0.saturating_add(1)));
        if first != next {
            return Err(corrupt(path, Damage::MissingEvent { task, seq: next }));
        }
        expected = row.last().map(|event| event.seq.0 + 1);
        events.extend(row.into_iter().filter(|event| event.seq > after));
    }
    events.truncate(limit as usize);
    Ok(events)
}

/// The id of a task, and the row of its first event: the number of its last event and its body.
pub(crate) type FirstRow = (Vec<u8>, i64, Vec<u8>);

/// The first events of the tasks with these owners and request ids, for readers and for the writer.
pub(crate) async fn first_event_rows(
    executor: impl SqliteExecutor<'_>,
    requests: &[(&str, &str)],
) -> sqlx::Result<Vec<((String, String), FirstRow)>> {
    // In this order of the tables, each request is looked up in the index.
    let rows = sqlx::query_as::<_, (String, String, Vec<u8>, i64, Vec<u8>)>(
        "SELECT t.owner, t.request, t.id, e.last, e.body FROM json_each(?) k
         CROSS JOIN tasks t ON t.owner = k.value ->> 0 AND t.request = k.value ->> 1
         CROSS JOIN events e ON e.task = t.number AND e.last = 1",
    )
    .bind(serde_json::to_string(requests).expect("strings are always valid JSON"))
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(owner, request, id, last, body)| ((owner, request), (id, last, body))).collect())
}

pub(crate) fn task_spec(path: &Path, (id, last, body): FirstRow) -> Result<(TaskId, TaskSpec), Error> {
    let task = task_id(path, &id)?;
    match decode(path, task, last, &body)?.into_iter().next().map(|event| event.kind) {
        Some(EventKind::Accepted(spec)) => Ok((task, spec)),
        _ => Err(corrupt(path, Damage::FirstEvent(task))),
    }
}

pub(crate) async fn find_request(
    pool: &SqlitePool,
    path: &Path,
    owner: &CallerName,
    request: &RequestId,
) -> Result<Option<(TaskId, TaskSpec)>, Error> {
    let rows = first_event_rows(pool, &[(owner.as_str(), request.as_str())]).await;
    let rows = rows.map_err(|e| Error::database(path, e))?;
    rows.into_iter().next().map(|(_, row)| task_spec(path, row)).transpose()
}

/// Whether a task belongs to a caller. The same lookup for a task that is another's as for one that is not there: neither is in the
/// caller's part of the index.
pub(crate) async fn is_owned(pool: &SqlitePool, path: &Path, task: TaskId, owner: &CallerName) -> Result<bool, Error> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM tasks INDEXED BY tasks_owner WHERE owner = ? AND id = ?")
            .bind(owner.as_str())
            .bind(task.as_bytes().as_slice())
            .fetch_optional(pool)
            .await
            .map_err(|e| Error::database(path, e))?;
    Ok(found.is_some())
}

pub(crate) async fn last_seq(pool: &SqlitePool, path: &Path, task: TaskId) -> Result<Option<Seq>, Error> {
    let last: Option<i64> =
        sqlx::query_scalar("SELECT max(last) FROM events WHERE task = (SELECT number FROM tasks WHERE id = ?)")
            .bind(task.as_bytes().as_slice())
            .fetch_one(pool)
            .await
            .map_err(|e| Error::database(path, e))?;
    Ok(last.map(|last| Seq(last.unsigned_abs())))
}

pub(crate) async fn unfinished(pool: &SqlitePool, path: &Path) -> Result<Vec<TaskId>, Error> {
    let sql = "SELECT id FROM tasks WHERE ended IS NULL AND stage = ? ORDER BY id";
    let ids: Vec<Vec<u8>> = sqlx::query_scalar::<Sqlite, _>(sql)
        .bind(TaskStatus::Running.code())
        .fetch_all(pool)
        .await
        .map_err(|e| Error::database(path, e))?;
    Ok(ids.iter().filter_map(|id| readable_id(path, id)).collect())
}

pub(crate) async fn tasks_of_callers(
    pool: &SqlitePool,
    path: &Path,
    ended_from: Timestamp,
) -> Result<Vec<TaskId>, Error> {
    let sql = "SELECT id FROM tasks WHERE owner <> ? AND (ended IS NULL OR ended >= ?) ORDER BY id";
    let ids: Vec<Vec<u8>> = sqlx::query_scalar::<Sqlite, _>(sql)
        .bind(CallerName::owner().as_str())
        .bind(i64::try_from(ended_from.0).unwrap_or(i64::MAX))
        .fetch_all(pool)
        .await
        .map_err(|e| Error::database(path, e))?;
    Ok(ids.iter().filter_map(|id| readable_id(path, id)).collect())
}

/// The id of a row; a row whose id is damaged is logged and left out, since nothing can name it.
fn readable_id(path: &Path, id: &[u8]) -> Option<TaskId> {
    let task = task_id(path, id);
    task.inspect_err(|error| tracing::error!(%error, "a task of the journal is left out")).ok()
}

/// The columns of an entry; the head of a short input is in the first event.
macro_rules! select_summary {
    ($($condition:literal),+) => {
        concat!(
            "SELECT id, graph, role, owner, (SELECT version FROM catalogs WHERE number = t.catalog) AS catalog, request, labels,
                 stage, created, ended, head, (SELECT max(last) FROM events WHERE task = t.number) AS last,
                 iif(head IS NULL, (SELECT body FROM events WHERE task = t.number AND last = 1), NULL) AS first
             FROM tasks t WHERE ",
            $($condition),+
        )
    };
}

/// One page of a list, with a further condition in front. Newest first is the order of the index of ids, and within the tasks of one
/// owner that of its part of the index of owners.
macro_rules! select_page {
    ($condition:literal) => {
        select_summary!(
            $condition,
            "id < ?1 AND (1 << stage) & ?2 AND (?3 IS NULL OR graph = ?3) AND (?4 IS NULL OR role = ?4)
                 AND (?5 IS NULL OR created >= ?5) AND (?6 IS NULL OR created < ?6)
                 AND NOT EXISTS (SELECT 1 FROM json_each(?7) wanted WHERE NOT EXISTS (
                     SELECT 1 FROM json_each(iif(json_valid(t.labels), t.labels, '{}')) found
                     WHERE found.key = wanted.key AND found.value = wanted.value))
             ORDER BY id DESC LIMIT ?8"
        )
    };
}

const SELECT_PAGE: &str = select_page!("");
pub(crate) const SELECT_PAGE_OF_OWNER: &str = select_page!("owner = ?9 AND ");

/// The entry of one task, or its damage; `None` if there is no such task.
pub(crate) async fn summary(
    pool: &SqlitePool,
    path: &Path,
    task: TaskId,
) -> Result<Option<Result<TaskSummary, DamagedTask>>, Error> {
    let row = sqlx::query(select_summary!("id = ?"))
        .bind(task.as_bytes().as_slice())
        .fetch_optional(pool)
        .await
        .map_err(|e| Error::database(path, e))?;
    row.map(|row| entry(path, task, &row)).transpose()
}

pub(crate) async fn list(
    pool: &SqlitePool,
    path: &Path,
    filter: &TaskFilter,
    page: TaskPage,
) -> Result<Vec<Result<TaskSummary, DamagedTask>>, Error> {
    // No task has the greatest id: it is not a UUID of version 7.
    let before = page.before.unwrap_or(TaskId::from_bytes([0xff; 16]));
    // Every task is before a time that does not fit into the column.
    let created_before = filter.created_before.and_then(|at| i64::try_from(at.0).ok());
    let query = sqlx::query(if filter.owner.is_some() { SELECT_PAGE_OF_OWNER } else { SELECT_PAGE })
        .bind(before.as_bytes().as_slice())
        .bind(filter.status_bits())
        .bind(filter.graph.as_ref().map(GraphName::as_str))
        .bind(filter.role.as_ref().map(RoleName::as_str))
        .bind(filter.created_from.map(|at| i64::try_from(at.0).unwrap_or(i64::MAX)))
        .bind(created_before)
        .bind(labels(&filter.labels))
        .bind(page.size);
    let query = match &filter.owner {
        Some(owner) => query.bind(owner.as_str()),
        None => query,
    };
    let rows = query.fetch_all(pool).await.map_err(|e| Error::database(path, e))?;
    let mut entries = Vec::with_capacity(rows.len());
    for row in &rows {
        let id = row.try_get("id").map_err(|e| Error::database(path, e))?;
        if let Some(task) = readable_id(path, id) {
            entries.push(entry(path, task, row)?);
        }
    }
    Ok(entries)
}

/// The entry of a task, or what is wrong with its row.
fn entry(path: &Path, task: TaskId, row: &SqliteRow) -> Result<Result<TaskSummary, DamagedTask>, Error> {
    match valid_entry(path, task, row) {
        Ok(summary) => Ok(Ok(summary)),
        Err(Error::Corrupt { detail: damage, .. }) => Ok(Err(DamagedTask { task, damage })),
        Err(error) => Err(error),
    }
}

fn valid_entry(path: &Path, task: TaskId, row: &SqliteRow) -> Result<TaskSummary, Error> {
    let failed = |e| Error::database(path, e);
    let invalid = |column: &'static str| corrupt(path, Damage::Column { task, column });
    let number = |column: &'static str| {
        u64::try_from(row.try_get::<i64, _>(column).map_err(failed)?).map_err(|_| invalid(column))
    };
    let ended: Option<i64> = row.try_get("ended").map_err(failed)?;
    let last: Option<i64> = row.try_get("last").map_err(failed)?;
    let role: Option<&str> = row.try_get("role").map_err(failed)?;
    let request: Option<&str> = row.try_get("request").map_err(failed)?;
    Ok(TaskSummary {
        task,
        graph: GraphName::parse(row.try_get("graph").map_err(failed)?).map_err(|_| invalid("graph"))?,
        role: role.map(RoleName::parse).transpose().map_err(|_| invalid("role"))?,
        owner: CallerName::parse(row.try_get("owner").map_err(failed)?).map_err(|_| invalid("owner"))?,
        catalog: CatalogVersion::new(row.try_get::<&str, _>("catalog").map_err(failed)?),
        request: request.map(|key| RequestId::parse(key).ok_or_else(|| invalid("request"))).transpose()?,
        labels: serde_json::from_str(row.try_get("labels").map_err(failed)?).map_err(|_| invalid("labels"))?,
        status: TaskStatus::from_code(row.try_get("stage").map_err(failed)?).ok_or_else(|| invalid("stage"))?,
        created: Timestamp(number("created")?),
        ended: ended.map(u64::try_from).transpose().map_err(|_| invalid("ended"))?.map(Timestamp),
        input_head: stored_head(path, row, task)?,
        last_seq: Seq(last.unwrap_or(0).unsigned_abs()),
    })
}

/// The head of a task's input: from its column, or for a short input from the first event; empty if that is damaged.
fn stored_head(path: &Path, row: &SqliteRow, task: TaskId) -> Result<String, Error> {
    let failed = |e| Error::database(path, e);
    if let Some(head) = row.try_get("head").map_err(failed)? {
        return Ok(head);
    }
    let first: Option<Vec<u8>> = row.try_get("first").map_err(failed)?;
    let spec = first.and_then(|first| task_spec(path, (task.as_bytes().to_vec(), 1, first)).ok());
    Ok(spec.map_or_else(String::new, |(_, spec)| TaskSummary::head(&spec.input)))
}

/// The erases that are not complete.
pub(crate) async fn erasures(executor: impl SqliteExecutor<'_>) -> sqlx::Result<Vec<Erasure>> {
    type ErasureRow = (Option<Vec<u8>>, Option<String>, Option<i64>);
    let sql = "SELECT task, owner, until FROM erasures ORDER BY number";
    let rows: Vec<ErasureRow> = sqlx::query_as(sql).fetch_all(executor).await?;
    // A row that says neither is damaged, and nothing can be done about it.
    Ok(rows.into_iter().filter_map(|(task, owner, until)| Erasure::of_row(task, owner, until)).collect())
}

/// The tasks of a caller that were accepted up to a time and are not erased, oldest first.
pub(crate) async fn tasks_to_erase(
    pool: &SqlitePool,
    path: &Path,
    owner: &CallerName,
    until: Timestamp,
) -> Result<Vec<TaskId>, Error> {
    let sql = "SELECT id FROM tasks WHERE owner = ? AND created <= ? AND erased IS NULL ORDER BY id";
    let ids: Vec<Vec<u8>> = sqlx::query_scalar::<Sqlite, _>(sql)
        .bind(owner.as_str())
        .bind(i64::try_from(until.0).unwrap_or(i64::MAX))
        .fetch_all(pool)
        .await
        .map_err(|e| Error::database(path, e))?;
    Ok(ids.iter().filter_map(|id| readable_id(path, id)).collect())
}

pub(crate) async fn catalog(pool: &SqlitePool, path: &Path, version: &CatalogVersion) -> Result<Option<String>, Error> {
    let sources: Option<Option<String>> = sqlx::query_scalar("SELECT sources FROM catalogs WHERE version = ?")
        .bind(version.as_str())
        .fetch_optional(pool)
        .await
        .map_err(|e| Error::database(path, e))?;
    Ok(sources.flatten())
}

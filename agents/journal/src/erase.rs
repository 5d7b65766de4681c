//! Erasing the text of tasks: its rows without text, and files without what was there before.
//!
//! The figures of an erased task stay: its events have their kinds, times and counts, and no text. A task whose rows cannot be
//! read has none to keep, and is deleted.
//!
//! A row that is replaced is still in the write-ahead log, in free pages, and in the gaps that SQLite leaves in a page when it
//! moves rows to another one, which `secure_delete` does not overwrite. So [`purge`] writes the whole database anew.

use std::path::Path;

use artel_task::event::Timestamp;
use artel_task::{CallerName, Event, EventKind, TaskId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use crate::codec::{decode, encode, task_id};
use crate::{Error, write};

/// The tasks that one transaction erases at most: each has some rows, and other requests wait meanwhile.
pub(crate) const ERASE_TASKS: usize = 32;

/// How often the log is tried to be emptied. Each attempt waits for readers as long as any write does, and readers of this program
/// need milliseconds.
const MAX_TRUNCATE_ATTEMPTS: u32 = 3;

/// What is to be erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Erasure {
    /// The text of one task.
    Task(TaskId),
    /// The text of all tasks of a caller that were accepted up to this time.
    Owner {
        /// The caller.
        name: CallerName,
        /// When the erase was asked for: later tasks are not meant.
        until: Timestamp,
    },
}

impl Erasure {
    /// The erase of a row; `None` if it says of nothing.
    pub(crate) fn of_row(task: Option<Vec<u8>>, owner: Option<String>, until: Option<i64>) -> Option<Self> {
        if let Some(id) = task {
            return task_id(Path::new(""), &id).ok().map(Self::Task);
        }
        let name = CallerName::parse(&owner?).ok()?;
        Some(Self::Owner { name, until: Timestamp(until?.unsigned_abs()) })
    }

    /// Whether it means something that belongs to this caller and to this task, which its id says the age of.
    pub fn includes(&self, task: TaskId, owner: &CallerName) -> bool {
        match self {
            Self::Task(erased) => *erased == task,
            Self::Owner { name, until } => name == owner && task.unix_millis() <= until.0,
        }
    }

    /// The time since which its text may have been in files.
    pub fn since(&self) -> Timestamp {
        match self {
            Self::Task(task) => Timestamp(task.unix_millis()),
            // Retention may have deleted the oldest tasks long ago.
            Self::Owner { .. } => Timestamp(0),
        }
    }
}

/// Stores erases that are asked for.
pub(crate) async fn begin(conn: &mut SqliteConnection, erasures: &[Erasure]) -> sqlx::Result<()> {
    for erasure in erasures {
        let (task, owner, until) = match erasure {
            Erasure::Task(task) => (Some(task.as_bytes().as_slice()), None, None),
            Erasure::Owner { name, until } => (None, Some(name.as_str()), Some(until.0)),
        };
        sqlx::query("INSERT INTO erasures (task, owner, until) VALUES (?, ?, ?)")
            .bind(task)
            .bind(owner)
            .bind(until.map(|until| i64::try_from(until).unwrap_or(i64::MAX)))
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// Stores that no erase is incomplete.
pub(crate) async fn end(conn: &mut SqliteConnection) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM erasures").execute(conn).await.map(drop)
}

/// What became of the rows of a task.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ErasedRows {
    /// There is no such task.
    Missing,
    /// It has not ended, and is left as it is.
    Unfinished,
    /// Without text.
    Rewritten,
    /// They could not be read.
    Deleted,
}

/// Erases the text of one task in the database.
pub(crate) async fn erase(
    conn: &mut SqliteConnection,
    path: &Path,
    task: TaskId,
    now: Timestamp,
) -> sqlx::Result<ErasedRows> {
    let number: Option<i64> = sqlx::query_scalar("SELECT number FROM tasks WHERE id = ?")
        .bind(task.as_bytes().as_slice())
        .fetch_optional(&mut *conn)
        .await?;
    let Some(number) = number else { return Ok(ErasedRows::Missing) };
    let rows = sqlx::query("SELECT last, body FROM events WHERE task = ? ORDER BY last").bind(number);
    let rows = rows.fetch_all(&mut *conn).await?;
    let mut stored = Vec::with_capacity(rows.len());
    for row in &rows {
        stored.push((row.try_get::<i64, _>("last")?, row.try_get::<&[u8], _>("body")?));
    }
    let Some(erased) = without_text(path, task, now, &stored) else {
        delete(conn, number).await?;
        return Ok(ErasedRows::Deleted);
    };
    if !erased.has_ended {
        return Ok(ErasedRows::Unfinished);
    }
    for (last, body) in erased.rows {
        sqlx::query("UPDATE events SET body = ? WHERE task = ? AND last = ?")
            .bind(body)
            .bind(number)
            .bind(last)
            .execute(&mut *conn)
            .await?;
    }
    sqlx::query("UPDATE tasks SET head = NULL, labels = '{}', request = NULL, erased = ? WHERE number = ?")
        .bind(i64::try_from(now.0).unwrap_or(i64::MAX))
        .bind(number)
        .execute(conn)
        .await?;
    Ok(ErasedRows::Rewritten)
}

struct RowsWithoutText {
    /// The number of the last event of each row, and its body.
    rows: Vec<(i64, Vec<u8>)>,
    has_ended: bool,
}

/// The rows of a task without text; `None` if they cannot be read.
fn without_text(path: &Path, task: TaskId, now: Timestamp, stored: &[(i64, &[u8])]) -> Option<RowsWithoutText> {
    let mut erased = RowsWithoutText { rows: Vec::with_capacity(stored.len()), has_ended: false };
    for (last, body) in stored {
        let events = decode(path, task, *last, body).ok()?;
        let is_start = events.first().is_some_and(|first| matches!(first.kind, EventKind::Accepted(_)));
        if erased.rows.is_empty() && !is_start {
            return None;
        }
        erased.has_ended = events.last().is_some_and(|event| event.kind.is_last());
        let events: Vec<Event> =
            events.into_iter().map(|event| Event { kind: event.kind.without_text(now), ..event }).collect();
        erased.rows.push((*last, encode(&events).ok()?));
    }
    (!erased.rows.is_empty()).then_some(erased)
}

async fn delete(conn: &mut SqliteConnection, number: i64) -> sqlx::Result<()> {
    for sql in ["DELETE FROM events WHERE task = ?", "DELETE FROM tasks WHERE number = ?"] {
        sqlx::query(sql).bind(number).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Writes the database anew, without free pages and gaps, and empties the log. Takes about as long as copying the file, and as much
/// space: writes wait meanwhile, reads do not.
pub(crate) async fn rewrite(conn: &mut SqliteConnection, now: Timestamp) -> sqlx::Result<()> {
    write::drop_erased_catalogs(conn, now).await?;
    sqlx::raw_sql("VACUUM").execute(conn).await.map(drop)
}

/// Copies the log into the database and truncates it to nothing, once no reader needs it.
pub(crate) async fn truncate_log(conn: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
    for _ in 0..MAX_TRUNCATE_ATTEMPTS {
        let (is_busy, ..): (i64, i64, i64) = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)")
            .fetch_one(&mut *conn)
            .await
            .map_err(|e| Error::database(path, e))?;
        if is_busy == 0 {
            return Ok(());
        }
    }
    Err(Error::LogInUse { path: path.to_owned() })
}

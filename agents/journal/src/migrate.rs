//! Migration of older formats.

use std::path::Path;
use std::sync::Arc;

use artel_task::event::Timestamp;
use artel_task::{Event, Seq, TaskId};
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;

use crate::codec::{corrupt, encode, task_id};
use crate::{Damage, Error, schema};

/// Renames the tables of version 1. Their indexes are dropped, since the new ones have the same names.
const RENAME_OLD_TABLES: &str = "
    DROP INDEX tasks_request;
    DROP INDEX tasks_running;
    DROP INDEX tasks_ended;
    ALTER TABLE tasks RENAME TO tasks_1;
    ALTER TABLE events RENAME TO events_1;
    ALTER TABLE catalogs RENAME TO catalogs_1;
";

/// Copies everything but the events. The heads of short inputs are no longer stored.
const COPY_ROWS: &str = "
    INSERT INTO catalogs (version, sources, kept) SELECT version, sources, kept FROM catalogs_1 ORDER BY kept;
    INSERT OR IGNORE INTO catalogs (version, kept) SELECT DISTINCT catalog, 0 FROM tasks_1;
    INSERT INTO tasks (id, graph, role, stage, created, ended, head, catalog, request, labels)
        SELECT id, graph, role, stage, created, ended, iif(length(head) < 200, NULL, head),
            (SELECT number FROM catalogs WHERE version = t.catalog), request, labels
        FROM tasks_1 t ORDER BY id;
";

/// Migrates version 1, which had a row of JSON for each event and no incremental vacuum, in one transaction.
pub(crate) async fn from_1(path: &Path, conn: &mut SqliteConnection) -> Result<(), Error> {
    tracing::info!(path = %path.display(), "migrating the journal from format 1");
    let failed = |e| Error::database(path, e);
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    for sql in [RENAME_OLD_TABLES, schema::CREATE, COPY_ROWS] {
        sqlx::raw_sql(sql).execute(&mut *tx).await.map_err(failed)?;
    }
    let tasks: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT number, id FROM tasks").fetch_all(&mut *tx).await.map_err(failed)?;
    for (number, id) in tasks {
        copy_events(path, &mut tx, number, task_id(path, &id)?).await?;
    }
    let drop = "DROP TABLE tasks_1; DROP TABLE events_1; DROP TABLE catalogs_1;";
    sqlx::raw_sql(drop).execute(&mut *tx).await.map_err(failed)?;
    schema::write_version(&mut tx).await.map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    // An existing file switches to incremental vacuum only by a full vacuum.
    sqlx::raw_sql("PRAGMA auto_vacuum = INCREMENTAL; VACUUM").execute(conn).await.map_err(failed)?;
    Ok(())
}

/// Adds the owners of tasks, of which there was one, and erases. The text of a default is that of `CallerName::owner`.
const ADD_OWNERS: &str = "
    ALTER TABLE tasks ADD COLUMN owner TEXT NOT NULL DEFAULT 'owner';
    ALTER TABLE tasks ADD COLUMN erased INTEGER;
    DROP INDEX tasks_request;
    CREATE UNIQUE INDEX tasks_owner ON tasks (owner, id);
    CREATE UNIQUE INDEX tasks_request ON tasks (owner, request) WHERE request IS NOT NULL;
    CREATE TABLE erasures (number INTEGER PRIMARY KEY, task BLOB, owner TEXT, until INTEGER) STRICT;
";

/// Migrates version 2, whose tasks had no owners, in one transaction. Events are left as they are: they name an owner only if it is
/// not the user whose daemon it is.
pub(crate) async fn from_2(path: &Path, conn: &mut SqliteConnection) -> Result<(), Error> {
    tracing::info!(path = %path.display(), "migrating the journal from format 2");
    let failed = |e| Error::database(path, e);
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    sqlx::raw_sql(ADD_OWNERS).execute(&mut *tx).await.map_err(failed)?;
    schema::write_version(&mut tx).await.map_err(failed)?;
    tx.commit().await.map_err(failed)
}

/// Events in one row: few enough that a read from the middle of a long task decodes little more than it needs.
const MAX_ROW_EVENTS: usize = 64;

/// Copies the first event into a row of its own, and then the others in chunks.
async fn copy_events(path: &Path, conn: &mut SqliteConnection, number: i64, task: TaskId) -> Result<(), Error> {
    let failed = |e| Error::database(path, e);
    let rows: Vec<(i64, i64, String)> =
        sqlx::query_as("SELECT seq, at, body FROM events_1 WHERE task = ? ORDER BY seq")
            .bind(task.as_bytes().as_slice())
            .fetch_all(&mut *conn)
            .await
            .map_err(failed)?;
    let event = |((seq, at, body), expected): ((i64, i64, String), i64)| {
        if seq != expected {
            return Err(corrupt(path, Damage::MissingEvent { task, seq: expected.unsigned_abs() }));
        }
        let kind = serde_json::from_str(&body);
        let kind = kind.map_err(|e| corrupt(path, Damage::OldEvent { task, seq, source: Arc::new(e) }))?;
        Ok(Event { task, seq: Seq(seq.unsigned_abs()), at: Timestamp(at.unsigned_abs()), kind })
    };
    let events = rows.into_iter().zip(1..).map(event).collect::<Result<Vec<_>, Error>>()?;
    let (first, others) = events.split_at(events.len().min(1));
    for chunk in first.chunks(1).chain(others.chunks(MAX_ROW_EVENTS)) {
        let last = chunk.last().expect("chunks are not empty");
        sqlx::query("INSERT INTO events (task, last, body) VALUES (?, ?, ?)")
            .bind(number)
            .bind(i64::try_from(last.seq.0).unwrap_or(i64::MAX))
            .bind(encode(chunk)?)
            .execute(&mut *conn)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

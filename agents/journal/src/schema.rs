//! The database's format and its version.

use std::path::Path;

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;

use crate::Error;

/// The format version that this program writes. A change of the format adds one, and a step in [`migrate`](crate::migrate).
pub(crate) const FORMAT_VERSION: i64 = 3;

/// `ARTL`, which distinguishes a journal from any other SQLite database.
const APPLICATION_ID: i64 = 0x4152_544c;

/// A task has a number in the database, which is shorter than its id. `head` is absent if the whole input is short: it is
/// then read from the first event. `labels` is a JSON object of strings. `owner` is the caller that it belongs to, within whose
/// tasks `request` is unique. `erased` is the time at which its text was erased.
///
/// A row of `events` holds the events of one request, under the number of the last one; the first event is always alone.
/// A step in the middle of a task writes one row and touches no second page.
///
/// `sources` is absent for a catalog that a task refers to but that was not stored. `kept` is the time of its last use.
///
/// A row of `erasures` is an erase that was asked for and is not complete: of the task of this id, or of all tasks and feedback of
/// this caller up to this time.
pub(crate) const CREATE: &str = "
    CREATE TABLE tasks (
        number INTEGER PRIMARY KEY,
        id BLOB NOT NULL,
        graph TEXT NOT NULL,
        role TEXT,
        stage INTEGER NOT NULL,
        created INTEGER NOT NULL,
        ended INTEGER,
        head TEXT,
        catalog INTEGER NOT NULL,
        request TEXT,
        labels TEXT NOT NULL,
        owner TEXT NOT NULL DEFAULT 'owner',
        erased INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX tasks_id ON tasks (id);
    CREATE UNIQUE INDEX tasks_owner ON tasks (owner, id);
    CREATE UNIQUE INDEX tasks_request ON tasks (owner, request) WHERE request IS NOT NULL;
    CREATE INDEX tasks_running ON tasks (id) WHERE ended IS NULL;
    CREATE INDEX tasks_ended ON tasks (ended) WHERE ended IS NOT NULL;
    CREATE TABLE events (
        task INTEGER NOT NULL,
        last INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (task, last)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE catalogs (
        number INTEGER PRIMARY KEY,
        version TEXT NOT NULL UNIQUE,
        sources TEXT,
        kept INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE erasures (
        number INTEGER PRIMARY KEY,
        task BLOB,
        owner TEXT,
        until INTEGER
    ) STRICT;
";

/// The format version on disk, 0 for an empty database.
pub(crate) async fn check(path: &Path, conn: &mut SqliteConnection) -> Result<i64, Error> {
    let (version, application, tables) = header(conn).await.map_err(|e| Error::database(path, e))?;
    let path = path.to_owned();
    match version {
        0 if tables == 0 && application == 0 => Ok(0),
        _ if application != APPLICATION_ID => Err(Error::NotAJournal { path }),
        found if found > FORMAT_VERSION => Err(Error::NewerFormat { path, found, known: FORMAT_VERSION }),
        known => Ok(known),
    }
}

async fn header(conn: &mut SqliteConnection) -> sqlx::Result<(i64, i64, i64)> {
    sqlx::query_as(
        "SELECT v.user_version, a.application_id, (SELECT count(*) FROM sqlite_schema)
         FROM pragma_user_version v, pragma_application_id a",
    )
    .fetch_one(conn)
    .await
}

/// Creates the tables and writes the version in one transaction.
pub(crate) async fn create(conn: &mut SqliteConnection) -> sqlx::Result<()> {
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(CREATE).execute(&mut *tx).await?;
    write_version(&mut tx).await?;
    tx.commit().await
}

/// Marks the database as a journal of this format version.
pub(crate) async fn write_version(conn: &mut SqliteConnection) -> sqlx::Result<()> {
    let pragmas = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(pragmas)).execute(conn).await?;
    Ok(())
}

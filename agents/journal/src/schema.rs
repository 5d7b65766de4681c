//! The database's format and its version.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use crate::{Error, migrate};

/// The version that this program writes. A change of the format adds one, and a step in [`migrate`].
pub(crate) const VERSION: i64 = 2;

/// `ARTL`, which tells a journal from any other SQLite database.
const APPLICATION: i64 = 0x4152_544c;

/// The log is cut back to this after a burst, so that it does not keep the size of the worst minute.
const WAL_BYTES: &str = "16777216";

/// Pages in the log before they are copied into the database, which takes two more syncs: as many as it may keep anyway.
const WAL_PAGES: &str = "4000";

/// A task has a number inside of the database, which is shorter than its id. `head` is absent where the whole input is no
/// longer, as the first event has it. `labels` is a JSON object of texts.
///
/// A row of `events` holds what one request appended, under the number of its last event; the first event is always alone.
/// A step in the middle of a task writes one row and no second page.
///
/// `sources` is absent for a catalog that a task named and nobody has stored. `kept` is when it was last named as one in use.
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
        labels TEXT NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX tasks_id ON tasks (id);
    CREATE UNIQUE INDEX tasks_request ON tasks (request) WHERE request IS NOT NULL;
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
";

/// What writer and readers have in common. The journal mode is set by [`open`], once the file is known to be ours.
pub(crate) fn connect_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .synchronous(SqliteSynchronous::Full)
        // Callers tell what failed; nobody reads each statement.
        .disable_statement_logging()
        .pragma("journal_size_limit", WAL_BYTES)
        .pragma("wal_autocheckpoint", WAL_PAGES)
}

/// Opens the writer's connection, making the database where it is missing and bringing an older one forward.
pub(crate) async fn open(path: &Path, options: SqliteConnectOptions) -> Result<SqliteConnection, Error> {
    let failed = |e| Error::database(path, e);
    let mut conn = options.create_if_missing(true).connect().await.map_err(failed)?;
    let version = check(path, &mut conn).await?;
    if version == 0 {
        // Before the first page is written, and to no file that may be somebody else's: the pragma writes.
        sqlx::raw_sql("PRAGMA auto_vacuum = INCREMENTAL").execute(&mut conn).await.map_err(failed)?;
    }
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode = WAL").fetch_one(&mut conn).await.map_err(failed)?;
    if mode != "wal" {
        return Err(Error::NoWal { path: path.to_owned(), mode });
    }
    match version {
        0 => create(&mut conn).await.map_err(failed)?,
        1 => migrate::from_1(path, &mut conn).await?,
        _ => {}
    }
    Ok(conn)
}

/// The version on disk, 0 for a database that is empty.
pub(crate) async fn check(path: &Path, conn: &mut SqliteConnection) -> Result<i64, Error> {
    let (version, application, tables) = header(conn).await.map_err(|e| Error::database(path, e))?;
    let path = path.to_owned();
    match version {
        0 if tables == 0 && application == 0 => Ok(0),
        _ if application != APPLICATION => Err(Error::Foreign { path }),
        found if found > VERSION => Err(Error::Newer { path, found, known: VERSION }),
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

/// All or nothing, the version included.
async fn create(conn: &mut SqliteConnection) -> sqlx::Result<()> {
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(CREATE).execute(&mut *tx).await?;
    mark(&mut tx).await?;
    tx.commit().await
}

/// Says that this is a journal of this version.
pub(crate) async fn mark(conn: &mut SqliteConnection) -> sqlx::Result<()> {
    let mark = format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(mark)).execute(conn).await?;
    Ok(())
}

//! Connections to the database: their options, and the opening of the writer's.

use std::path::Path;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};

use crate::{Error, migrate, schema};

/// The write-ahead log is truncated to this size after a burst, so that it does not keep its largest size.
const WAL_BYTES: &str = "16777216";

/// Pages in the log before a checkpoint, which takes two more syncs: as many as the log may keep anyway.
const WAL_PAGES: &str = "4000";

/// The connection options of writer and readers. [`open`] sets the journal mode, once the file is known to be a journal.
pub(crate) fn connect_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .synchronous(SqliteSynchronous::Full)
        // Callers log failures; a log of each statement has no use.
        .disable_statement_logging()
        .pragma("journal_size_limit", WAL_BYTES)
        .pragma("wal_autocheckpoint", WAL_PAGES)
}

/// Opens the writer's connection, creating the database if it is missing and migrating an older one.
pub(crate) async fn open(path: &Path, options: SqliteConnectOptions) -> Result<SqliteConnection, Error> {
    let failed = |e| Error::database(path, e);
    let mut conn = options.create_if_missing(true).connect().await.map_err(failed)?;
    let version = schema::check(path, &mut conn).await?;
    if version == 0 {
        // Before the first page is written, and never to the database of another program: the pragma writes.
        sqlx::raw_sql("PRAGMA auto_vacuum = INCREMENTAL").execute(&mut conn).await.map_err(failed)?;
    }
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode = WAL").fetch_one(&mut conn).await.map_err(failed)?;
    if mode != "wal" {
        return Err(Error::NoWal { path: path.to_owned(), mode });
    }
    match version {
        0 => schema::create(&mut conn).await.map_err(failed)?,
        1 => migrate::from_1(path, &mut conn).await?,
        2 => migrate::from_2(path, &mut conn).await?,
        _ => {}
    }
    Ok(conn)
}

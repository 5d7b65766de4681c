//! The database's format, and connections to it.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use crate::Error;

/// The format version that this program writes.
const FORMAT_VERSION: i64 = 1;

/// `ARTK`, which distinguishes an index from any other SQLite database.
const APPLICATION_ID: i64 = 0x4152_544b;

/// The write-ahead log is truncated to this size after a burst.
const WAL_BYTES: &str = "16777216";

/// Numbers of chunks only grow: what is kept in memory is sorted by them.
///
/// `phase` of a generation is that of [`GenerationPhase`](crate::generation::GenerationPhase), `analysis` the version of what makes
/// `terms`. An entry with a `reason` has no chunks. `terms` of a chunk are its words as [`ChunkTerms`](artel_terms::ChunkTerms) stores
/// them. `orphaned` of an embedding is the time in milliseconds since which no chunk has it. `mirrored` has the points of another
/// store of vectors.
const CREATE: &str = "
    CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), commits INTEGER NOT NULL) STRICT;
    INSERT INTO state (id, commits) VALUES (1, 0);
    CREATE TABLE bases (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE models (id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, dimensions INTEGER NOT NULL) STRICT;
    CREATE TABLE generations (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        base INTEGER NOT NULL,
        model INTEGER,
        chunking TEXT NOT NULL,
        languages TEXT NOT NULL,
        analysis INTEGER NOT NULL,
        phase INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX generations_base ON generations (base);
    CREATE TABLE texts (
        base INTEGER NOT NULL,
        id TEXT NOT NULL,
        name TEXT NOT NULL,
        text TEXT NOT NULL,
        owner TEXT NOT NULL,
        labels TEXT NOT NULL,
        PRIMARY KEY (base, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        generation INTEGER NOT NULL,
        key TEXT NOT NULL,
        source TEXT NOT NULL,
        owner TEXT NOT NULL,
        labels TEXT NOT NULL,
        hash BLOB NOT NULL,
        bytes INTEGER NOT NULL,
        mtime INTEGER NOT NULL,
        inode INTEGER NOT NULL,
        fresh INTEGER NOT NULL,
        reason TEXT,
        chunks INTEGER NOT NULL,
        UNIQUE (generation, key)
    ) STRICT;
    CREATE INDEX entries_owner ON entries (owner);
    CREATE TABLE chunks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        generation INTEGER NOT NULL,
        entry INTEGER NOT NULL,
        text TEXT NOT NULL,
        context TEXT NOT NULL,
        header TEXT,
        byte_start INTEGER NOT NULL,
        byte_end INTEGER NOT NULL,
        line_start INTEGER NOT NULL,
        line_end INTEGER NOT NULL,
        page INTEGER,
        terms BLOB NOT NULL,
        embedding INTEGER
    ) STRICT;
    CREATE INDEX chunks_entry ON chunks (entry);
    CREATE INDEX chunks_generation ON chunks (generation);
    CREATE INDEX chunks_embedding ON chunks (embedding) WHERE embedding IS NOT NULL;
    CREATE TABLE embeddings (
        id INTEGER PRIMARY KEY,
        model INTEGER NOT NULL,
        hash BLOB NOT NULL,
        vector BLOB NOT NULL,
        orphaned INTEGER,
        UNIQUE (model, hash)
    ) STRICT;
    CREATE TABLE mirrored (
        chunk INTEGER PRIMARY KEY,
        base INTEGER NOT NULL,
        point TEXT NOT NULL UNIQUE,
        stamp TEXT NOT NULL,
        is_written INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX mirrored_base ON mirrored (base);
    CREATE INDEX embeddings_orphaned ON embeddings (orphaned) WHERE orphaned IS NOT NULL;
";

/// The options of the writer's connection and of the readers'.
///
/// `NORMAL` does not sync each commit: a power cut may lose the last ones, never a part of one, and the next scan finds what is
/// missing.
pub(crate) fn connect_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .synchronous(SqliteSynchronous::Normal)
        .disable_statement_logging()
        .pragma("journal_size_limit", WAL_BYTES)
}

/// Opens the writer's connection, creating the database if it is missing.
pub(crate) async fn open(path: &Path, options: SqliteConnectOptions) -> Result<SqliteConnection, Error> {
    let failed = |e| Error::database(path, e);
    let mut conn = options.create_if_missing(true).connect().await.map_err(failed)?;
    let version = check(path, &mut conn).await?;
    if version == 0 {
        // Before the first page is written, and never to the database of another program: the pragma writes.
        sqlx::raw_sql("PRAGMA auto_vacuum = INCREMENTAL").execute(&mut conn).await.map_err(failed)?;
    }
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode = WAL").fetch_one(&mut conn).await.map_err(failed)?;
    if mode != "wal" {
        return Err(Error::NoWal { path: path.to_owned(), mode });
    }
    if version == 0 {
        create(&mut conn).await.map_err(failed)?;
    }
    Ok(conn)
}

/// The format version on disk, 0 for an empty database.
async fn check(path: &Path, conn: &mut SqliteConnection) -> Result<i64, Error> {
    let header: Result<(i64, i64, i64), _> = sqlx::query_as(
        "SELECT v.user_version, a.application_id, (SELECT count(*) FROM sqlite_schema)
         FROM pragma_user_version v, pragma_application_id a",
    )
    .fetch_one(conn)
    .await;
    let (version, application, tables) = header.map_err(|e| Error::database(path, e))?;
    let path = path.to_owned();
    match version {
        0 if tables == 0 && application == 0 => Ok(0),
        _ if application != APPLICATION_ID => Err(Error::NotAnIndex { path }),
        found if found > FORMAT_VERSION => Err(Error::NewerFormat { path, found, known: FORMAT_VERSION }),
        known => Ok(known),
    }
}

/// Creates the tables and writes the version in one transaction.
async fn create(conn: &mut SqliteConnection) -> sqlx::Result<()> {
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(CREATE).execute(&mut *tx).await?;
    let pragmas = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION}");
    sqlx::raw_sql(AssertSqlSafe(pragmas)).execute(&mut *tx).await?;
    tx.commit().await
}

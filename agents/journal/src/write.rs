//! What is written besides tasks and events: catalogs, and what retention deletes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use artel_task::CatalogVersion;
use sqlx::sqlite::SqliteConnection;

use crate::Retention;

/// How many tasks one transaction deletes at most, so that retention never holds up the others for long.
pub(crate) const PRUNE: u64 = 128;

/// A catalog that no task names is kept for this long after it was last in use: somebody may be about to submit.
const CATALOG_GRACE: Duration = Duration::from_secs(3600);

/// Pages that one transaction gives back to the file system at most.
const SHRINK: i64 = 512;

/// Free pages that the file may keep, besides a quarter of all: tasks to come will fill them.
const SLACK: i64 = 256;

pub(crate) async fn keep_catalog(
    conn: &mut SqliteConnection,
    version: &CatalogVersion,
    sources: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO catalogs (version, sources, kept) VALUES (?, ?, ?)
         ON CONFLICT (version) DO UPDATE SET kept = excluded.kept, sources = coalesce(sources, excluded.sources)",
    )
    .bind(version.as_str())
    .bind(sources)
    .bind(now())
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes up to [`PRUNE`] ended tasks that are too many, too old or too large, and gives their number; fewer means that
/// was all.
pub(crate) async fn prune(conn: &mut SqliteConnection, limits: Retention) -> sqlx::Result<u64> {
    let cutoff = now().saturating_sub(millis(limits.age));
    let (ended, aged): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM tasks WHERE ended IS NOT NULL), (SELECT count(*) FROM tasks WHERE ended < ?)",
    )
    .bind(cutoff)
    .fetch_one(&mut *conn)
    .await?;
    let (ended, aged) = (ended.unsigned_abs(), aged.unsigned_abs());
    let excess = ended.saturating_sub(limits.tasks);
    let large = too_large(conn, limits.bytes).await?.min(ended);
    let delete = excess.max(aged).max(large).min(PRUNE);
    if delete > 0 {
        delete_oldest(conn, delete).await?;
    }
    if delete < PRUNE {
        delete_catalogs(conn).await?;
    }
    Ok(delete)
}

/// How many tasks of the usual size are more than so many bytes hold.
async fn too_large(conn: &mut SqliteConnection, bytes: u64) -> sqlx::Result<u64> {
    let (used, tasks): (i64, i64) = sqlx::query_as(
        "SELECT (p.page_count - f.freelist_count) * s.page_size, (SELECT count(*) FROM tasks)
         FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s",
    )
    .fetch_one(conn)
    .await?;
    let (used, tasks) = (used.unsigned_abs(), tasks.unsigned_abs());
    let each = (used / tasks.max(1)).max(1);
    Ok(used.saturating_sub(bytes).div_ceil(each))
}

/// Both statements choose the same tasks, since the first one leaves `tasks` alone.
async fn delete_oldest(conn: &mut SqliteConnection, count: u64) -> sqlx::Result<()> {
    for sql in [
        "DELETE FROM events WHERE task IN
             (SELECT number FROM tasks WHERE ended IS NOT NULL ORDER BY ended, number LIMIT ?)",
        "DELETE FROM tasks WHERE number IN
             (SELECT number FROM tasks WHERE ended IS NOT NULL ORDER BY ended, number LIMIT ?)",
    ] {
        sqlx::query(sql).bind(saturating(count)).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Deletes the catalogs that no task names, but for the newest one and those that were in use a moment ago.
async fn delete_catalogs(conn: &mut SqliteConnection) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM catalogs WHERE kept < ? AND kept < (SELECT max(kept) FROM catalogs)
         AND number NOT IN (SELECT catalog FROM tasks)",
    )
    .bind(now().saturating_sub(millis(CATALOG_GRACE)))
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives pages back to the file system that tasks to come will hardly need. True if there are more.
pub(crate) async fn shrink(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    let (pages, free): (i64, i64) =
        sqlx::query_as("SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count")
            .fetch_one(&mut *conn)
            .await?;
    let spare = free - SLACK.max(pages / 4);
    if spare <= 0 {
        return Ok(false);
    }
    let sql = format!("PRAGMA incremental_vacuum({})", spare.min(SHRINK));
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(conn).await?;
    Ok(spare > SHRINK)
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

//! Writes of catalogs, and the deletions of retention.

use std::time::Duration;

use artel_task::CatalogVersion;
use artel_task::event::Timestamp;
use sqlx::sqlite::SqliteConnection;

use crate::Retention;

/// The tasks that one transaction deletes at most, so that retention delays other requests only briefly.
pub(crate) const PRUNE_TASKS: u64 = 128;

/// A catalog that no task refers to is kept for this long after its last use: a task may be about to be submitted.
const CATALOG_GRACE: Duration = Duration::from_secs(3600);

/// The pages that one transaction returns to the file system at most.
const MAX_VACUUM_PAGES: i64 = 512;

/// The free pages that the file keeps, or a quarter of all pages if that is more: future tasks will fill them.
const KEPT_FREE_PAGES: i64 = 256;

pub(crate) async fn store_catalog(
    conn: &mut SqliteConnection,
    version: &CatalogVersion,
    sources: &str,
    now: Timestamp,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO catalogs (version, sources, kept) VALUES (?, ?, ?)
         ON CONFLICT (version) DO UPDATE SET kept = excluded.kept, sources = coalesce(sources, excluded.sources)",
    )
    .bind(version.as_str())
    .bind(sources)
    .bind(saturating(now.0))
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes up to [`PRUNE_TASKS`] ended tasks that are too many, too old or too large, and returns their number. A smaller
/// number means that none are left to delete.
pub(crate) async fn prune(conn: &mut SqliteConnection, limits: Retention, now: Timestamp) -> sqlx::Result<u64> {
    let cutoff = saturating(now.0).saturating_sub(millis(limits.age));
    let (ended, expired): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM tasks WHERE ended IS NOT NULL), (SELECT count(*) FROM tasks WHERE ended < ?)",
    )
    .bind(cutoff)
    .fetch_one(&mut *conn)
    .await?;
    let (ended, expired) = (ended.unsigned_abs(), expired.unsigned_abs());
    let excess = ended.saturating_sub(limits.tasks);
    let oversize = excess_by_size(conn, limits.bytes).await?.min(ended);
    let delete = excess.max(expired).max(oversize).min(PRUNE_TASKS);
    if delete > 0 {
        delete_oldest(conn, delete).await?;
    }
    if delete < PRUNE_TASKS {
        delete_catalogs(conn, now).await?;
    }
    Ok(delete)
}

/// How many tasks of average size exceed this number of bytes.
async fn excess_by_size(conn: &mut SqliteConnection, bytes: u64) -> sqlx::Result<u64> {
    let (used, tasks): (i64, i64) = sqlx::query_as(
        "SELECT (p.page_count - f.freelist_count) * s.page_size, (SELECT count(*) FROM tasks)
         FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s",
    )
    .fetch_one(conn)
    .await?;
    let (used, tasks) = (used.unsigned_abs(), tasks.unsigned_abs());
    let average = (used / tasks.max(1)).max(1);
    Ok(used.saturating_sub(bytes).div_ceil(average))
}

/// Deletes the tasks that ended first. Both statements select the same tasks, since the first one does not change `tasks`.
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

/// Deletes the catalogs that no task refers to, except for the newest one and recently used ones.
async fn delete_catalogs(conn: &mut SqliteConnection, now: Timestamp) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM catalogs WHERE kept < ? AND kept < (SELECT max(kept) FROM catalogs)
         AND number NOT IN (SELECT catalog FROM tasks)",
    )
    .bind(unused_since(now))
    .execute(conn)
    .await?;
    Ok(())
}

/// The catalogs whose sources are to be erased, with the time before which they were last used: only erased tasks refer to them, and
/// one that a caller sent may have been written for the task alone. The newest one is needed, and one that was used recently may be.
macro_rules! catalogs_to_erase {
    () => {
        "sources IS NOT NULL AND kept < ? AND kept < (SELECT max(kept) FROM catalogs)
         AND number IN (SELECT catalog FROM tasks WHERE erased IS NOT NULL)
         AND number NOT IN (SELECT catalog FROM tasks WHERE erased IS NULL)"
    };
}

/// Whether the sources of a catalog are to be erased.
pub(crate) async fn has_catalogs_to_erase(conn: &mut SqliteConnection, now: Timestamp) -> sqlx::Result<bool> {
    let sql = concat!("SELECT EXISTS (SELECT 1 FROM catalogs WHERE ", catalogs_to_erase!(), ")");
    sqlx::query_scalar(sql).bind(unused_since(now)).fetch_one(conn).await
}

/// Deletes the sources of the catalogs that only erased tasks refer to, except for the newest one and recently used ones.
pub(crate) async fn drop_erased_catalogs(conn: &mut SqliteConnection, now: Timestamp) -> sqlx::Result<()> {
    let sql = concat!("UPDATE catalogs SET sources = NULL WHERE ", catalogs_to_erase!());
    sqlx::query(sql).bind(unused_since(now)).execute(conn).await.map(drop)
}

/// A catalog that was last used before this is not about to be used by a new task.
fn unused_since(now: Timestamp) -> i64 {
    saturating(now.0).saturating_sub(millis(CATALOG_GRACE))
}

/// Returns pages that are unlikely to be needed to the file system. True if more are left.
pub(crate) async fn vacuum(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    let (pages, free): (i64, i64) =
        sqlx::query_as("SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count")
            .fetch_one(&mut *conn)
            .await?;
    let spare = free - KEPT_FREE_PAGES.max(pages / 4);
    if spare <= 0 {
        return Ok(false);
    }
    let sql = format!("PRAGMA incremental_vacuum({})", spare.min(MAX_VACUUM_PAGES));
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(conn).await?;
    Ok(spare > MAX_VACUUM_PAGES)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn saturating(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

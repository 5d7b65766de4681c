//! Removal for good: what belongs to a caller, and embeddings that nothing refers to.

use artel_task::CallerName;

use crate::entry::EntryKey;
use crate::error::Error;
use crate::generation::GenerationId;
use crate::write;
use crate::writer::IndexWriter;

/// Removes all entries and texts of a caller, and all embeddings that no chunk has. Returns the number of entries.
pub(crate) async fn owner(writer: &mut IndexWriter, owner: &CallerName, now_ms: i64) -> Result<u64, Error> {
    let entries = sqlx::query_as("SELECT generation, key FROM entries WHERE owner = ?").bind(owner.as_str());
    let entries: Vec<(i64, String)> = entries.fetch_all(&mut writer.conn).await.map_err(|e| writer.failed(e))?;
    let erased = entries.len() as u64;
    for (generation, key) in entries {
        write::remove(writer, GenerationId(generation), &EntryKey::stored(key), now_ms).await?;
    }
    let texts = sqlx::query("DELETE FROM texts WHERE owner = ?").bind(owner.as_str());
    texts.execute(&mut writer.conn).await.map_err(|e| writer.failed(e))?;
    // An embedding tells what its text is about. Those that were kept for their return go too.
    orphans(writer, i64::MAX).await?;
    Ok(erased)
}

/// Deletes the embeddings that no chunk has had since before this time.
pub(crate) async fn orphans(writer: &mut IndexWriter, before_ms: i64) -> Result<(), Error> {
    let deleted = sqlx::query("DELETE FROM embeddings WHERE orphaned < ?").bind(before_ms);
    deleted.execute(&mut writer.conn).await.map(drop).map_err(|e| writer.failed(e))
}

/// Writes the database anew without what was deleted, and empties the log. Takes as long as copying the file.
pub(crate) async fn rewrite(writer: &mut IndexWriter) -> Result<(), Error> {
    for sql in ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] {
        sqlx::raw_sql(sql).execute(&mut writer.conn).await.map_err(|e| writer.failed(e))?;
    }
    Ok(())
}

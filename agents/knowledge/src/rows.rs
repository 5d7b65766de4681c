//! Rows of the database as values.

use std::path::Path;

use artel_task::CallerName;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::entry::{ContentHash, EntryKey, EntryLabels, EntryMeta, FileStat, StoredEntry};
use crate::error::Error;
use artel_documents::DocumentChunk;

/// An error of what a row holds.
pub(crate) fn corrupt(path: &Path, detail: impl Into<String>) -> Error {
    Error::Corrupt { path: path.to_owned(), detail: detail.into() }
}

/// The columns that [`stored_entry`] reads, in order.
pub(crate) const ENTRY_COLUMNS: &str = "key, source, owner, labels, hash, bytes, mtime, inode, fresh, reason, chunks";

pub(crate) fn stored_entry(path: &Path, row: &SqliteRow) -> Result<StoredEntry, Error> {
    let failed = |e| Error::database(path, e);
    let hash: Vec<u8> = row.try_get("hash").map_err(failed)?;
    let chunks: i64 = row.try_get("chunks").map_err(failed)?;
    let key: String = row.try_get("key").map_err(failed)?;
    let hash = ContentHash::stored(&hash).ok_or_else(|| corrupt(path, format!("the hash of `{key}` is damaged")))?;
    let number = |column: &str| row.try_get::<i64, _>(column).map_err(failed);
    let stat = FileStat {
        bytes: number("bytes")?.cast_unsigned(),
        mtime_ns: number("mtime")?,
        inode: number("inode")?.cast_unsigned(),
    };
    Ok(StoredEntry {
        meta: EntryMeta {
            source: row.try_get("source").map_err(failed)?,
            owner: owner(path, row)?,
            labels: labels(path, row)?,
            hash,
            stat,
            is_fresh: number("fresh")? != 0,
        },
        key: EntryKey::stored(key),
        reason: row.try_get("reason").map_err(failed)?,
        chunks: u32::try_from(chunks).unwrap_or_default(),
    })
}

pub(crate) fn owner(path: &Path, row: &SqliteRow) -> Result<CallerName, Error> {
    let name: String = row.try_get("owner").map_err(|e| Error::database(path, e))?;
    CallerName::parse(&name).map_err(|_| corrupt(path, format!("`{name}` is no name of an owner")))
}

pub(crate) fn labels(path: &Path, row: &SqliteRow) -> Result<EntryLabels, Error> {
    let json: String = row.try_get("labels").map_err(|e| Error::database(path, e))?;
    serde_json::from_str(&json).map_err(|e| corrupt(path, format!("labels are damaged: {e}")))
}

/// The columns that [`chunk`] reads.
pub(crate) const CHUNK_COLUMNS: &str =
    "c.text, c.context, c.header, c.byte_start, c.byte_end, c.line_start, c.line_end, c.page";

pub(crate) fn chunk(path: &Path, row: &SqliteRow) -> Result<DocumentChunk, Error> {
    let failed = |e| Error::database(path, e);
    let number = |column: &str| row.try_get::<i64, _>(column).map_err(failed);
    let line = |column: &str| Ok::<_, Error>(u32::try_from(number(column)?).unwrap_or_default());
    let context: String = row.try_get("context").map_err(failed)?;
    let page: Option<i64> = row.try_get("page").map_err(failed)?;
    Ok(DocumentChunk {
        text: row.try_get("text").map_err(failed)?,
        context: serde_json::from_str(&context).map_err(|e| corrupt(path, format!("headings are damaged: {e}")))?,
        header: row.try_get("header").map_err(failed)?,
        bytes: number("byte_start")?.cast_unsigned()..number("byte_end")?.cast_unsigned(),
        lines: line("line_start")?..=line("line_end")?,
        page: page.and_then(|page| u32::try_from(page).ok()),
    })
}

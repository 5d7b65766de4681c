//! Texts that clients handed in. They are kept as they came, so that they can be indexed anew.

use std::path::Path;

use sqlx::Row as _;
use sqlx::sqlite::{SqlitePool, SqliteRow};

use crate::entry::HandedText;
use crate::error::Error;
use crate::rows;
use crate::writer::IndexWriter;

/// The longest text: what is longer is a file.
pub const MAX_TEXT_BYTES: usize = 4 << 20;

/// The longest id and name of a text, and the most labels.
const MAX_ID_BYTES: usize = 512;
const MAX_TEXT_LABELS: usize = 64;

pub(crate) fn check(text: &HandedText) -> Result<(), Error> {
    let longest = |texts: &mut dyn Iterator<Item = &String>| texts.map(String::len).max().unwrap_or(0);
    let labels = longest(&mut text.labels.iter().flat_map(|(name, value)| [name, value]));
    let limits = [
        ("text", text.text.len(), MAX_TEXT_BYTES, "add it as a file (bytes)"),
        ("id", text.id.len(), MAX_ID_BYTES, "shorten it (bytes)"),
        ("name", text.name.len(), MAX_ID_BYTES, "shorten it (bytes)"),
        ("labels", text.labels.len(), MAX_TEXT_LABELS, "give it fewer labels"),
        ("labels", labels, MAX_ID_BYTES, "shorten them (bytes)"),
    ];
    match limits.into_iter().find(|(_, found, limit, _)| found > limit) {
        Some((field, found, limit, advice)) => Err(Error::Limit { field, found, limit, advice }),
        None => Ok(()),
    }
}

pub(crate) async fn put(writer: &mut IndexWriter, base: &str, text: &HandedText) -> Result<(), Error> {
    let done = sqlx::query(
        "INSERT OR REPLACE INTO texts (base, id, name, text, owner, labels)
         SELECT id, ?, ?, ?, ?, ? FROM bases WHERE name = ?",
    )
    .bind(&text.id)
    .bind(&text.name)
    .bind(&text.text)
    .bind(text.owner.as_str())
    .bind(serde_json::to_string(&text.labels).expect("labels are text"))
    .bind(base)
    .execute(&mut writer.conn)
    .await
    .map_err(|e| writer.failed(e))?;
    if done.rows_affected() == 0 { Err(Error::UnknownBase { base: base.to_owned() }) } else { Ok(()) }
}

pub(crate) async fn remove(writer: &mut IndexWriter, base: &str, id: &str) -> Result<bool, Error> {
    let sql = "DELETE FROM texts WHERE id = ? AND base = (SELECT id FROM bases WHERE name = ?)";
    let done = sqlx::query(sql).bind(id).bind(base).execute(&mut writer.conn).await;
    Ok(done.map_err(|e| writer.failed(e))?.rows_affected() > 0)
}

pub(crate) async fn all(path: &Path, readers: &SqlitePool, base: &str) -> Result<Vec<HandedText>, Error> {
    let sql = "SELECT t.id, t.name, t.text, t.owner, t.labels FROM texts t JOIN bases b ON b.id = t.base
               WHERE b.name = ? ORDER BY t.id";
    let rows = sqlx::query(sql).bind(base).fetch_all(readers).await.map_err(|e| Error::database(path, e))?;
    let text = |row: &SqliteRow| {
        let column = |name: &str| row.try_get::<String, _>(name).map_err(|e| Error::database(path, e));
        Ok(HandedText {
            id: column("id")?,
            name: column("name")?,
            text: column("text")?,
            owner: rows::owner(path, row)?,
            labels: rows::labels(path, row)?,
        })
    };
    rows.iter().map(text).collect()
}

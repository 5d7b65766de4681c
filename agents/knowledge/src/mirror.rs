//! What another store of vectors has of a generation: which chunks it lacks, and which of its points have no chunk any more.
//!
//! A chunk gets the id of its point before it is written there, so that one that was written before a crash is written again under
//! the same id. Where the text of a chunk lies, and whose it is, is written with it; if that changes, it is written anew.

use std::collections::BTreeMap;

use artel_documents::DocumentChunk;
use artel_task::CallerName;
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use crate::entry::{EntryKey, EntryLabels};
use crate::error::Error;
use crate::generation::GenerationId;
use crate::index::Index;
use crate::rows::{self, CHUNK_COLUMNS, corrupt};
use crate::vectors::StoredVector;
use crate::writer::IndexWriter;

/// A chunk that is to be written to the other store.
#[derive(Debug, Clone, PartialEq)]
pub struct MirrorPoint {
    /// The id of its point.
    pub id: Uuid,
    /// The file or text.
    pub entry: EntryKey,
    /// Whose it is.
    pub owner: CallerName,
    /// The labels of its source.
    pub labels: EntryLabels,
    /// The chunk.
    pub chunk: DocumentChunk,
    /// Its embedding, a unit vector.
    pub vector: Vec<f32>,
    /// The fingerprint of the model of the embedding.
    pub model: String,
}

/// The chunks of a generation that are not written, or were written with another place.
const LACKING: &str = "FROM chunks c JOIN entries e ON e.id = c.entry JOIN embeddings v ON v.id = c.embedding
    JOIN models o ON o.id = v.model LEFT JOIN mirrored m ON m.chunk = c.id
    WHERE c.generation = ? AND (m.chunk IS NULL OR m.is_written = 0
        OR m.stamp <> e.key || char(10) || e.owner || char(10) || e.labels)";

impl Index {
    /// Chunks of a generation that the other store lacks, or has as they were; at most so many. Each has the id of its point from
    /// now on. They are lacking until [`mirrored`](Self::mirrored).
    ///
    /// # Errors
    /// Any fault.
    pub async fn lacking_points(&self, generation: GenerationId, limit: u32) -> Result<Vec<MirrorPoint>, Error> {
        self.write(move |writer| Box::pin(lacking(writer, generation, limit))).await
    }

    /// Whether the other store lacks chunks of a generation.
    ///
    /// # Errors
    /// Any fault.
    pub async fn lacks_points(&self, generation: GenerationId) -> Result<bool, Error> {
        let sql = format!("SELECT EXISTS (SELECT 1 {LACKING})");
        let found = sqlx::query_scalar(AssertSqlSafe(sql)).bind(generation.0).fetch_one(self.readers()).await;
        found.map_err(|e| Error::database(self.path(), e))
    }

    /// These points are in the other store.
    ///
    /// # Errors
    /// Any fault.
    pub async fn mirrored(&self, points: Vec<Uuid>) -> Result<(), Error> {
        self.mark(points, "UPDATE mirrored SET is_written = 1 WHERE point IN (SELECT value FROM json_each(?))").await
    }

    /// These points are not in the other store, or not any more.
    ///
    /// # Errors
    /// Any fault.
    pub async fn unmirrored(&self, points: Vec<Uuid>) -> Result<(), Error> {
        self.mark(points, "DELETE FROM mirrored WHERE point IN (SELECT value FROM json_each(?))").await
    }

    /// Points of a base that have no chunk in this generation any more; at most so many. They are to be deleted there, and then
    /// [`unmirrored`](Self::unmirrored).
    ///
    /// # Errors
    /// Any fault.
    pub async fn abandoned_points(&self, generation: GenerationId, limit: u32) -> Result<Vec<Uuid>, Error> {
        let sql = "SELECT m.point FROM mirrored m LEFT JOIN chunks c ON c.id = m.chunk AND c.generation = ?1
                   WHERE m.base = (SELECT base FROM generations WHERE id = ?1) AND c.id IS NULL LIMIT ?2";
        let found = sqlx::query_scalar(sql).bind(generation.0).bind(limit).fetch_all(self.readers()).await;
        self.points(found)
    }

    /// All points that the other store has, as far as is known here.
    ///
    /// # Errors
    /// Any fault.
    pub async fn written_points(&self, generation: GenerationId) -> Result<Vec<Uuid>, Error> {
        let sql =
            "SELECT point FROM mirrored WHERE is_written = 1 AND base = (SELECT base FROM generations WHERE id = ?)";
        let found = sqlx::query_scalar(sql).bind(generation.0).fetch_all(self.readers()).await;
        self.points(found)
    }

    /// The chunks of points, those alone that are in the index.
    ///
    /// # Errors
    /// Any fault.
    pub async fn chunks_of_points(&self, points: &[Uuid]) -> Result<Vec<i64>, Error> {
        let sql = "SELECT point, chunk FROM mirrored WHERE point IN (SELECT value FROM json_each(?))";
        let found = sqlx::query_as(sql).bind(json_list(points)).fetch_all(self.readers()).await;
        let found: Vec<(String, i64)> = found.map_err(|e| Error::database(self.path(), e))?;
        let chunks: BTreeMap<String, i64> = found.into_iter().collect();
        Ok(points.iter().filter_map(|point| chunks.get(&point.to_string()).copied()).collect())
    }

    async fn mark(&self, points: Vec<Uuid>, sql: &'static str) -> Result<(), Error> {
        let points = json_list(&points);
        self.write(move |writer| {
            Box::pin(async move {
                let marked = sqlx::query(sql).bind(points).execute(&mut writer.conn).await;
                marked.map(drop).map_err(|e| writer.failed(e))
            })
        })
        .await
    }

    fn points(&self, found: sqlx::Result<Vec<String>>) -> Result<Vec<Uuid>, Error> {
        let found = found.map_err(|e| Error::database(self.path(), e))?;
        let damaged = |text: &String| corrupt(self.path(), format!("`{text}` is no id of a point"));
        found.iter().map(|text| Uuid::parse_str(text).map_err(|_| damaged(text))).collect()
    }
}

fn json_list(points: &[Uuid]) -> String {
    serde_json::to_string(points).expect("ids are JSON")
}

async fn lacking(writer: &mut IndexWriter, generation: GenerationId, limit: u32) -> Result<Vec<MirrorPoint>, Error> {
    let path = writer.path.clone();
    let sql = format!(
        "SELECT c.id, {CHUNK_COLUMNS}, e.key, e.owner, e.labels, v.vector, o.fingerprint,
             e.key || char(10) || e.owner || char(10) || e.labels AS stamp, m.point {LACKING} LIMIT ?"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(generation.0).bind(limit).fetch_all(&mut writer.conn).await;
    let mut points = Vec::new();
    for row in rows.map_err(|e| writer.failed(e))? {
        let failed = |e| Error::database(&path, e);
        let known: Option<String> = row.try_get("point").map_err(failed)?;
        let id = known.and_then(|text| Uuid::parse_str(&text).ok()).unwrap_or_else(Uuid::now_v7);
        let vector: Vec<u8> = row.try_get("vector").map_err(failed)?;
        let vector = StoredVector::decode(&vector).ok_or_else(|| corrupt(&path, "a vector is damaged"))?;
        let stored = sqlx::query(
            "INSERT OR REPLACE INTO mirrored (chunk, base, point, stamp, is_written)
             VALUES (?, (SELECT base FROM generations WHERE id = ?), ?, ?, 0)",
        )
        .bind(row.try_get::<i64, _>("id").map_err(failed)?)
        .bind(generation.0)
        .bind(id.to_string())
        .bind(row.try_get::<String, _>("stamp").map_err(failed)?);
        stored.execute(&mut writer.conn).await.map_err(failed)?;
        points.push(MirrorPoint {
            id,
            entry: EntryKey::stored(row.try_get("key").map_err(failed)?),
            owner: rows::owner(&path, &row)?,
            labels: rows::labels(&path, &row)?,
            chunk: rows::chunk(&path, &row)?,
            vector: vector.values(),
            model: row.try_get("fingerprint").map_err(failed)?,
        });
    }
    Ok(points)
}

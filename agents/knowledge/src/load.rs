//! What memory holds, read from the database when it is opened.

use std::path::Path;

use futures::TryStreamExt as _;
use sqlx::sqlite::SqliteConnection;

use crate::error::Error;
use crate::rows::corrupt;
use crate::segment::{GenerationView, IndexedChunk, MAX_SEGMENT_CHUNKS};
use crate::vectors::StoredVector;
use crate::views::Views;
use artel_terms::ChunkTerms;
use artel_terms::Language;

/// The number of commits and the views of all generations in use.
pub(crate) async fn load(path: &Path, conn: &mut SqliteConnection) -> Result<(i64, Views), Error> {
    let failed = |e| Error::database(path, e);
    let commits: i64 = sqlx::query_scalar("SELECT commits FROM state").fetch_one(&mut *conn).await.map_err(failed)?;
    let generations: Vec<(i64, i64, String)> = sqlx::query_as(
        "SELECT g.id, coalesce(m.dimensions, 0), g.languages FROM generations g
         LEFT JOIN models m ON m.id = g.model WHERE g.phase <> 2",
    )
    .fetch_all(&mut *conn)
    .await
    .map_err(failed)?;
    let mut views = Views::new();
    for (generation, dimensions, languages) in generations {
        let languages: Vec<Language> =
            serde_json::from_str(&languages).map_err(|e| corrupt(path, format!("languages are damaged: {e}")))?;
        let mut view = GenerationView::new(usize::try_from(dimensions).unwrap_or_default(), &languages);
        fill(path, conn, generation, &mut view).await?;
        views.insert(generation, view);
    }
    Ok((commits, views))
}

async fn fill(
    path: &Path,
    conn: &mut SqliteConnection,
    generation: i64,
    view: &mut GenerationView,
) -> Result<(), Error> {
    let mut rows = sqlx::query_as::<_, (i64, i64, Vec<u8>, Option<Vec<u8>>)>(
        "SELECT c.id, c.entry, c.terms, e.vector FROM chunks c LEFT JOIN embeddings e ON e.id = c.embedding
         WHERE c.generation = ? ORDER BY c.id",
    )
    .bind(generation)
    .fetch(conn);
    let mut chunks = Vec::new();
    while let Some((id, entry, terms, vector)) = rows.try_next().await.map_err(|e| Error::database(path, e))? {
        let terms =
            ChunkTerms::decode(&terms).ok_or_else(|| corrupt(path, format!("the terms of chunk {id} are damaged")))?;
        chunks.push(IndexedChunk { id, entry, terms, vector: vector.and_then(|bytes| StoredVector::decode(&bytes)) });
        if chunks.len() == MAX_SEGMENT_CHUNKS {
            view.append(&std::mem::take(&mut chunks));
        }
    }
    view.append(&chunks);
    Ok(())
}

//! What a transaction writes of one entry: its chunks replaced, its removal, its other name.

use std::collections::HashMap;
use std::sync::Arc;

use crate::entry::{ContentHash, EntryKey, EntryMeta};
use crate::error::Error;
use crate::generation::{GenerationId, mark_orphans};
use crate::segment::IndexedChunk;
use crate::vectors::StoredVector;
use crate::views::ViewChange;
use crate::writer::IndexWriter;
use artel_documents::DocumentChunk;
use artel_terms::ChunkTerms;
use artel_terms::Language;

/// A chunk with all that is computed of it before a transaction.
#[derive(Debug, Clone)]
pub struct PreparedChunk {
    chunk: DocumentChunk,
    embedded: String,
    hash: ContentHash,
    terms: ChunkTerms,
}

impl PreparedChunk {
    /// Analyses a chunk. Takes about 50 µs, so many of them belong on a thread that may block.
    pub fn of(chunk: DocumentChunk, languages: &[Language]) -> Self {
        let embedded = chunk.indexed_text();
        let (hash, terms) = (ContentHash::of(embedded.as_bytes()), ChunkTerms::of(&embedded, languages));
        Self { chunk, embedded, hash, terms }
    }

    /// What is embedded of it: its context, header and text.
    pub fn embedded_text(&self) -> &str {
        &self.embedded
    }

    /// The hash of that text, by which its embedding is kept.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }
}

/// The new content of an entry.
#[derive(Debug, Clone)]
pub(crate) enum EntryContent {
    /// These chunks.
    Chunks(Arc<Vec<PreparedChunk>>),
    /// None, for this reason.
    Unreadable(String),
}

/// The row of a generation that writes need.
struct GenerationRow {
    id: i64,
    model: Option<i64>,
}

/// Replaces all that a base has of an entry. Its first generation must have an embedding for each chunk, the others do without.
pub(crate) async fn replace(
    writer: &mut IndexWriter,
    generations: &[GenerationId],
    key: &EntryKey,
    meta: &EntryMeta,
    content: &EntryContent,
    now_ms: i64,
) -> Result<(), Error> {
    for (at, generation) in generations.iter().enumerate() {
        let generation = generation_row(writer, *generation).await?;
        // An older generation keeps its own chunks of what has not changed.
        if at > 0 && stored_hash(writer, generation.id, key).await? == Some(meta.hash) {
            continue;
        }
        replace_in(writer, &generation, at == 0, key, meta, content, now_ms).await?;
    }
    Ok(())
}

async fn generation_row(writer: &mut IndexWriter, id: GenerationId) -> Result<GenerationRow, Error> {
    let found = sqlx::query_scalar("SELECT model FROM generations WHERE id = ? AND phase <> 2").bind(id.0);
    let found: Option<Option<i64>> = found.fetch_optional(&mut writer.conn).await.map_err(|e| writer.failed(e))?;
    found.map(|model| GenerationRow { id: id.0, model }).ok_or(Error::UnknownGeneration { generation: id.0 })
}

async fn stored_hash(writer: &mut IndexWriter, generation: i64, key: &EntryKey) -> Result<Option<ContentHash>, Error> {
    let sql = "SELECT hash FROM entries WHERE generation = ? AND key = ?";
    let hash = sqlx::query_scalar(sql).bind(generation).bind(key.as_str()).fetch_optional(&mut writer.conn).await;
    let hash: Option<Vec<u8>> = hash.map_err(|e| writer.failed(e))?;
    Ok(hash.and_then(|hash| ContentHash::stored(&hash)))
}

async fn replace_in(
    writer: &mut IndexWriter,
    generation: &GenerationRow,
    is_target: bool,
    key: &EntryKey,
    meta: &EntryMeta,
    content: &EntryContent,
    now_ms: i64,
) -> Result<(), Error> {
    let (chunks, reason): (&[PreparedChunk], _) = match content {
        EntryContent::Chunks(chunks) => (chunks, None),
        EntryContent::Unreadable(reason) => (&[], Some(reason.as_str())),
    };
    let embeddings = match generation.model {
        Some(model) => embeddings_of(writer, model, chunks).await?,
        None => HashMap::new(),
    };
    if is_target && generation.model.is_some() {
        let missing = chunks.iter().filter(|chunk| !embeddings.contains_key(&chunk.hash)).count();
        if missing > 0 {
            return Err(Error::MissingEmbeddings { key: key.to_string(), missing });
        }
    }
    let entry = store_entry(writer, generation.id, key, meta, reason, chunks.len()).await?;
    let old = delete_chunks(writer, generation.id, entry).await?;
    let mut appended = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let embedding = embeddings.get(&chunk.hash);
        let id = insert_chunk(writer, generation.id, entry, chunk, embedding.map(|(id, _)| *id)).await?;
        let vector = embedding.map(|(_, vector)| vector.clone());
        appended.push(IndexedChunk { id, entry, terms: chunk.terms.clone(), vector });
    }
    mark_orphans(&mut writer.conn, old, now_ms).await.map_err(|e| Error::database(&writer.path, e))?;
    if !appended.is_empty() {
        writer.change(ViewChange::Append { generation: generation.id, chunks: appended });
    }
    Ok(())
}

/// The stored embeddings of chunks, by the hashes of their texts.
async fn embeddings_of(
    writer: &mut IndexWriter,
    model: i64,
    chunks: &[PreparedChunk],
) -> Result<HashMap<ContentHash, (i64, StoredVector)>, Error> {
    let mut found = HashMap::new();
    for chunk in chunks {
        if found.contains_key(&chunk.hash) {
            continue;
        }
        let sql = "UPDATE embeddings SET orphaned = NULL WHERE model = ? AND hash = ? RETURNING id, vector";
        let row = sqlx::query_as(sql).bind(model).bind(chunk.hash.as_bytes().as_slice());
        let row: Option<(i64, Vec<u8>)> = row.fetch_optional(&mut writer.conn).await.map_err(|e| writer.failed(e))?;
        if let Some((id, vector)) = row
            && let Some(vector) = StoredVector::decode(&vector)
        {
            found.insert(chunk.hash, (id, vector));
        }
    }
    Ok(found)
}

async fn store_entry(
    writer: &mut IndexWriter,
    generation: i64,
    key: &EntryKey,
    meta: &EntryMeta,
    reason: Option<&str>,
    chunks: usize,
) -> Result<i64, Error> {
    sqlx::query_scalar(
        "INSERT INTO entries (generation, key, source, owner, labels, hash, bytes, mtime, inode, fresh, reason, chunks)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (generation, key) DO UPDATE SET source = excluded.source, owner = excluded.owner,
             labels = excluded.labels, hash = excluded.hash, bytes = excluded.bytes, mtime = excluded.mtime,
             inode = excluded.inode, fresh = excluded.fresh, reason = excluded.reason, chunks = excluded.chunks
         RETURNING id",
    )
    .bind(generation)
    .bind(key.as_str())
    .bind(&meta.source)
    .bind(meta.owner.as_str())
    .bind(labels_json(meta))
    .bind(meta.hash.as_bytes().as_slice())
    .bind(meta.stat.bytes.cast_signed())
    .bind(meta.stat.mtime_ns)
    .bind(meta.stat.inode.cast_signed())
    .bind(meta.is_fresh)
    .bind(reason)
    .bind(i64::try_from(chunks).unwrap_or(i64::MAX))
    .fetch_one(&mut writer.conn)
    .await
    .map_err(|e| writer.failed(e))
}

fn labels_json(meta: &EntryMeta) -> String {
    serde_json::to_string(&meta.labels).expect("labels are text")
}

async fn insert_chunk(
    writer: &mut IndexWriter,
    generation: i64,
    entry: i64,
    prepared: &PreparedChunk,
    embedding: Option<i64>,
) -> Result<i64, Error> {
    let chunk = &prepared.chunk;
    sqlx::query_scalar(
        "INSERT INTO chunks (generation, entry, text, context, header, byte_start, byte_end, line_start, line_end, page,
             terms, embedding)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
    )
    .bind(generation)
    .bind(entry)
    .bind(&chunk.text)
    .bind(serde_json::to_string(&chunk.context).expect("headings are text"))
    .bind(chunk.header.as_deref())
    .bind(chunk.bytes.start.cast_signed())
    .bind(chunk.bytes.end.cast_signed())
    .bind(*chunk.lines.start())
    .bind(*chunk.lines.end())
    .bind(chunk.page)
    .bind(prepared.terms.encode())
    .bind(embedding)
    .fetch_one(&mut writer.conn)
    .await
    .map_err(|e| writer.failed(e))
}

/// Deletes the chunks of an entry, and returns their embeddings.
async fn delete_chunks(writer: &mut IndexWriter, generation: i64, entry: i64) -> Result<Vec<i64>, Error> {
    let deleted = sqlx::query_as("DELETE FROM chunks WHERE entry = ? RETURNING id, embedding").bind(entry);
    let deleted: Vec<(i64, Option<i64>)> = deleted.fetch_all(&mut writer.conn).await.map_err(|e| writer.failed(e))?;
    if !deleted.is_empty() {
        let chunks = deleted.iter().map(|(id, _)| *id).collect();
        writer.change(ViewChange::Remove { generation, chunks });
    }
    Ok(deleted.into_iter().filter_map(|(_, embedding)| embedding).collect())
}

/// Removes an entry with all that is derived from it. Whether there was one.
pub(crate) async fn remove(
    writer: &mut IndexWriter,
    generation: GenerationId,
    key: &EntryKey,
    now_ms: i64,
) -> Result<bool, Error> {
    let sql = "DELETE FROM entries WHERE generation = ? AND key = ? RETURNING id";
    let entry = sqlx::query_scalar(sql).bind(generation.0).bind(key.as_str()).fetch_optional(&mut writer.conn).await;
    let entry: Option<i64> = entry.map_err(|e| writer.failed(e))?;
    let Some(entry) = entry else { return Ok(false) };
    let embeddings = delete_chunks(writer, generation.0, entry).await?;
    mark_orphans(&mut writer.conn, embeddings, now_ms).await.map_err(|e| Error::database(&writer.path, e))?;
    Ok(true)
}

/// Gives an entry another name, in place of any entry that had it. Whether there was one to rename.
pub(crate) async fn rename(
    writer: &mut IndexWriter,
    generation: GenerationId,
    from: &EntryKey,
    to: &EntryKey,
    meta: &EntryMeta,
    now_ms: i64,
) -> Result<bool, Error> {
    remove(writer, generation, to, now_ms).await?;
    let renamed = sqlx::query("UPDATE entries SET key = ? WHERE generation = ? AND key = ?");
    let renamed = renamed.bind(to.as_str()).bind(generation.0).bind(from.as_str()).execute(&mut writer.conn).await;
    let renamed = renamed.map_err(|e| writer.failed(e))?.rows_affected() > 0;
    if renamed {
        touch(writer, generation, to, meta).await?;
    }
    Ok(renamed)
}

/// Stores what is known of an entry whose content is as it was. Whether there is such an entry with that content.
pub(crate) async fn touch(
    writer: &mut IndexWriter,
    generation: GenerationId,
    key: &EntryKey,
    meta: &EntryMeta,
) -> Result<bool, Error> {
    let done = sqlx::query(
        "UPDATE entries SET source = ?, owner = ?, labels = ?, bytes = ?, mtime = ?, inode = ?, fresh = ?
         WHERE generation = ? AND key = ? AND hash = ?",
    )
    .bind(&meta.source)
    .bind(meta.owner.as_str())
    .bind(labels_json(meta))
    .bind(meta.stat.bytes.cast_signed())
    .bind(meta.stat.mtime_ns)
    .bind(meta.stat.inode.cast_signed())
    .bind(meta.is_fresh)
    .bind(generation.0)
    .bind(key.as_str())
    .bind(meta.hash.as_bytes().as_slice())
    .execute(&mut writer.conn)
    .await
    .map_err(|e| writer.failed(e))?;
    Ok(done.rows_affected() > 0)
}

/// Stores embeddings of texts by their hashes; until a chunk has them, they are orphans since now.
pub(crate) async fn store_embeddings(
    writer: &mut IndexWriter,
    model: i64,
    dimensions: usize,
    vectors: &[(ContentHash, Vec<f32>)],
    now_ms: i64,
) -> Result<(), Error> {
    for (hash, values) in vectors {
        let vector = StoredVector::of(values);
        if vector.dimensions() != dimensions {
            return Err(Error::Dimensions { found: vector.dimensions(), expected: dimensions });
        }
        let sql = "INSERT INTO embeddings (model, hash, vector, orphaned) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
        let stored = sqlx::query(sql).bind(model).bind(hash.as_bytes().as_slice()).bind(vector.encode()).bind(now_ms);
        stored.execute(&mut writer.conn).await.map_err(|e| writer.failed(e))?;
    }
    Ok(())
}

//! Bases and their generations. A generation is all that depends on the settings of a base: when these change, another one is
//! built beside the one that answers, and takes its place when it is complete.

use sqlx::sqlite::SqliteConnection;

use crate::embedder::ModelPrint;
use crate::error::Error;
use crate::views::ViewChange;
use crate::writer::IndexWriter;
use artel_terms::ANALYSIS_VERSION;
use artel_terms::Language;

/// The number of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GenerationId(pub(crate) i64);

/// What a generation depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexSettings {
    /// The embedding model and the dimensions of its vectors; without one, a base is searched by words alone.
    pub model: Option<(ModelPrint, usize)>,
    /// What tells the chunks of one way of reading from those of another.
    pub chunking: String,
    /// The languages whose words are reduced to stems.
    pub languages: Vec<Language>,
}

/// What a generation is for. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GenerationPhase {
    /// It is not complete, and another one answers.
    Building = 0,
    /// It answers.
    Serving = 1,
    /// It is deleted, a part at a time.
    Retired = 2,
}

/// The generations of a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedBase {
    /// The one with the current settings, which is filled.
    pub target: GenerationId,
    /// The one that answers meanwhile, if it is another.
    pub answering: Option<GenerationId>,
}

impl OpenedBase {
    /// Both, the target first.
    pub(crate) fn all(self) -> Vec<GenerationId> {
        [Some(self.target), self.answering].into_iter().flatten().collect()
    }
}

/// Finds or creates the generation of these settings. Others that do not answer are given up.
pub(crate) async fn open_base(
    writer: &mut IndexWriter,
    name: &str,
    settings: &IndexSettings,
) -> Result<OpenedBase, Error> {
    let base = base_id(writer, name).await?;
    let model = match &settings.model {
        Some((print, dimensions)) => Some(model_id(writer, print, *dimensions).await?),
        None => None,
    };
    let languages = serde_json::to_string(&settings.languages).expect("names of languages are text");
    let found: Vec<(i64, Option<i64>, String, String, i64, i64)> = sqlx::query_as(
        "SELECT id, model, chunking, languages, analysis, phase FROM generations WHERE base = ? AND phase <> 2",
    )
    .bind(base)
    .fetch_all(&mut writer.conn)
    .await
    .map_err(|e| writer.failed(e))?;
    let is_current = |(_, of, chunking, of_languages, analysis, _): &(i64, Option<i64>, String, String, i64, i64)| {
        *of == model
            && *chunking == settings.chunking
            && *of_languages == languages
            && *analysis == i64::from(ANALYSIS_VERSION)
    };
    let serving = found.iter().find(|row| row.5 == GenerationPhase::Serving as i64);
    let current = serving.filter(|row| is_current(row)).or_else(|| found.iter().find(|row| is_current(row)));
    let given_up =
        found.iter().filter(|row| row.5 == GenerationPhase::Building as i64 && current.is_none_or(|c| c.0 != row.0));
    for (generation, ..) in given_up.cloned().collect::<Vec<_>>() {
        retire(writer, generation).await?;
    }
    let answering = serving.map(|row| GenerationId(row.0));
    if let Some((id, ..)) = current {
        let target = GenerationId(*id);
        return Ok(OpenedBase { target, answering: answering.filter(|answering| *answering != target) });
    }
    // The first generation of a base answers with what it has.
    let phase = if serving.is_some() { GenerationPhase::Building } else { GenerationPhase::Serving };
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO generations (base, model, chunking, languages, analysis, phase) VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
    )
    .bind(base)
    .bind(model)
    .bind(&settings.chunking)
    .bind(&languages)
    .bind(i64::from(ANALYSIS_VERSION))
    .bind(phase as i64)
    .fetch_one(&mut writer.conn)
    .await
    .map_err(|e| writer.failed(e))?;
    let dimensions = settings.model.as_ref().map_or(0, |(_, dimensions)| *dimensions);
    let languages = settings.languages.clone();
    writer.change(ViewChange::Create { generation: id, dimensions, languages });
    Ok(OpenedBase { target: GenerationId(id), answering })
}

async fn base_id(writer: &mut IndexWriter, name: &str) -> Result<i64, Error> {
    let sql = "INSERT INTO bases (name) VALUES (?) ON CONFLICT (name) DO UPDATE SET name = name RETURNING id";
    let id = sqlx::query_scalar(sql).bind(name).fetch_one(&mut writer.conn).await;
    id.map_err(|e| writer.failed(e))
}

async fn model_id(writer: &mut IndexWriter, print: &ModelPrint, dimensions: usize) -> Result<i64, Error> {
    let sql = "INSERT INTO models (fingerprint, dimensions) VALUES (?, ?)
               ON CONFLICT (fingerprint) DO UPDATE SET fingerprint = fingerprint RETURNING id, dimensions";
    let stored = sqlx::query_as(sql).bind(print.as_str()).bind(i64::try_from(dimensions).unwrap_or(i64::MAX));
    let (id, stored): (i64, i64) = stored.fetch_one(&mut writer.conn).await.map_err(|e| writer.failed(e))?;
    let expected = usize::try_from(stored).unwrap_or_default();
    if expected == dimensions { Ok(id) } else { Err(Error::Dimensions { found: dimensions, expected }) }
}

/// Lets the target answer in place of the generation that did.
pub(crate) async fn swap(writer: &mut IndexWriter, base: OpenedBase) -> Result<(), Error> {
    let Some(answering) = base.answering else { return Ok(()) };
    let done = sqlx::query("UPDATE generations SET phase = ? WHERE id = ? AND phase = ?")
        .bind(GenerationPhase::Serving as i64)
        .bind(base.target.0)
        .bind(GenerationPhase::Building as i64)
        .execute(&mut writer.conn)
        .await
        .map_err(|e| writer.failed(e))?;
    if done.rows_affected() == 0 {
        return Err(Error::UnknownGeneration { generation: base.target.0 });
    }
    retire(writer, answering.0).await
}

/// Takes a generation out of use; [`purge_some`] deletes it.
pub(crate) async fn retire(writer: &mut IndexWriter, generation: i64) -> Result<(), Error> {
    let sql = "UPDATE generations SET phase = ? WHERE id = ?";
    let done = sqlx::query(sql).bind(GenerationPhase::Retired as i64).bind(generation).execute(&mut writer.conn).await;
    done.map_err(|e| writer.failed(e))?;
    writer.change(ViewChange::Drop { generation });
    Ok(())
}

/// Takes all generations of a base out of use, and its texts. Whether there was such a base.
pub(crate) async fn remove_base(writer: &mut IndexWriter, name: &str) -> Result<bool, Error> {
    let id: Option<i64> = sqlx::query_scalar("DELETE FROM bases WHERE name = ? RETURNING id")
        .bind(name)
        .fetch_optional(&mut writer.conn)
        .await
        .map_err(|e| writer.failed(e))?;
    let Some(id) = id else { return Ok(false) };
    let done = sqlx::query("DELETE FROM texts WHERE base = ?").bind(id).execute(&mut writer.conn).await;
    done.map_err(|e| writer.failed(e))?;
    let generations = sqlx::query_scalar("SELECT id FROM generations WHERE base = ?").bind(id);
    let generations: Vec<i64> = generations.fetch_all(&mut writer.conn).await.map_err(|e| writer.failed(e))?;
    for generation in generations {
        retire(writer, generation).await?;
    }
    Ok(true)
}

/// The chunks that one transaction deletes at most, so that others wait only briefly.
const PURGED_CHUNKS: i64 = 2000;

/// Deletes a part of a retired generation. Whether there is more to delete.
pub(crate) async fn purge_some(writer: &mut IndexWriter, now_ms: i64) -> Result<bool, Error> {
    purge(&mut writer.conn, now_ms).await.map_err(|e| Error::database(&writer.path, e))
}

async fn purge(conn: &mut SqliteConnection, now_ms: i64) -> sqlx::Result<bool> {
    let retired: Option<i64> =
        sqlx::query_scalar("SELECT id FROM generations WHERE phase = 2 LIMIT 1").fetch_optional(&mut *conn).await?;
    let Some(retired) = retired else { return Ok(false) };
    let embeddings: Vec<Option<i64>> = sqlx::query_scalar(
        "DELETE FROM chunks WHERE id IN (SELECT id FROM chunks WHERE generation = ? LIMIT ?) RETURNING embedding",
    )
    .bind(retired)
    .bind(PURGED_CHUNKS)
    .fetch_all(&mut *conn)
    .await?;
    if embeddings.is_empty() {
        sqlx::query("DELETE FROM entries WHERE generation = ?").bind(retired).execute(&mut *conn).await?;
        sqlx::query("DELETE FROM generations WHERE id = ?").bind(retired).execute(&mut *conn).await?;
    }
    mark_orphans(conn, embeddings.into_iter().flatten().collect(), now_ms).await?;
    Ok(true)
}

/// Notes since when no chunk has these embeddings, where that is so.
pub(crate) async fn mark_orphans(conn: &mut SqliteConnection, embeddings: Vec<i64>, now_ms: i64) -> sqlx::Result<()> {
    if embeddings.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE embeddings SET orphaned = ? WHERE id IN (SELECT value FROM json_each(?))
         AND NOT EXISTS (SELECT 1 FROM chunks WHERE embedding = embeddings.id)",
    )
    .bind(now_ms)
    .bind(serde_json::to_string(&embeddings).expect("numbers are JSON"))
    .execute(conn)
    .await?;
    Ok(())
}

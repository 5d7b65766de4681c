//! A search over one committed state of memory and database.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use globset::{Glob, GlobSet, GlobSetBuilder};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _};

use crate::arms::{self, ScoredChunk};
use crate::error::Error;
use crate::fusion::{self, FusedChunk, FusionRule};
use crate::query::{Passage, SearchFilter, SearchMode, SearchQuery, SearchResult, SearchTimes};
use crate::rows::{self, CHUNK_COLUMNS, corrupt};
use crate::segment::{EntryFilter, GenerationView};
use crate::vectors::PreparedQuery;
use crate::views::Views;
use artel_terms::query_words;

/// The words of a query that are looked for: more than a long question has.
const MAX_QUERY_WORDS: usize = 128;

/// What the arms found.
struct ArmResults {
    fused: Vec<FusedChunk>,
    rule: FusionRule,
    best_keyword: Option<f32>,
    best_vector: Option<f32>,
    times: SearchTimes,
}

/// Searches a base. The connection is in a transaction that reads the state which the views belong to.
pub(crate) async fn search(
    path: &Path,
    conn: &mut SqliteConnection,
    views: Arc<Views>,
    base: &str,
    query: SearchQuery,
) -> Result<SearchResult, Error> {
    let begin = Instant::now();
    let serving: Option<(i64, Option<String>)> = sqlx::query_as(
        "SELECT g.id, m.fingerprint FROM bases b JOIN generations g ON g.base = b.id
         LEFT JOIN models m ON m.id = g.model WHERE b.name = ? AND g.phase = 1",
    )
    .bind(base)
    .fetch_optional(&mut *conn)
    .await
    .map_err(|e| Error::database(path, e))?;
    let unknown = || Error::UnknownBase { base: base.to_owned() };
    let (generation, model) = serving.ok_or_else(unknown)?;
    let view = views.get(&generation).ok_or_else(unknown)?.clone();
    let vector = prepare_vector(&query, model.as_deref(), &view)?;
    let is_without_vectors = vector.is_none() && query.mode != SearchMode::Keyword;
    let filter = resolve(path, conn, generation, &query.filter).await?;
    let filtered = begin.elapsed();
    let top = query.top;
    let arms = tokio::task::spawn_blocking(move || run_arms(&view, &query, vector.as_ref(), &filter));
    let mut found = arms.await.map_err(|_| Error::Closed { path: path.to_owned() })?;
    found.fused.truncate(top);
    let begin = Instant::now();
    let passages = read(path, conn, &found.fused).await?;
    let times = SearchTimes { filter: filtered, read: begin.elapsed(), ..found.times };
    Ok(SearchResult {
        passages,
        best_keyword: found.best_keyword,
        best_vector: found.best_vector,
        rule: found.rule,
        is_without_vectors,
        times,
    })
}

/// The vector of the query, if the base has vectors of its model.
fn prepare_vector(
    query: &SearchQuery,
    model: Option<&str>,
    view: &GenerationView,
) -> Result<Option<PreparedQuery>, Error> {
    let fitting = query.embedding.as_ref().filter(|embedding| model == Some(embedding.model.as_str()));
    match fitting {
        _ if query.mode == SearchMode::Keyword => Ok(None),
        None if query.mode == SearchMode::Vector => Err(Error::NoVector { mode: "vector" }),
        None => Ok(None),
        Some(embedding) if embedding.values.len() != view.dimensions => {
            Err(Error::Dimensions { found: embedding.values.len(), expected: view.dimensions })
        }
        Some(embedding) => Ok(Some(PreparedQuery::of(&embedding.values))),
    }
}

fn run_arms(
    view: &GenerationView,
    query: &SearchQuery,
    vector: Option<&PreparedQuery>,
    filter: &EntryFilter,
) -> ArmResults {
    let limit = query.candidates();
    let begin = Instant::now();
    let by_words = (query.mode != SearchMode::Vector).then(|| {
        let words = query_words(&query.text, &view.languages, MAX_QUERY_WORDS);
        arms::keyword(view, &words, filter, limit)
    });
    let keyword = begin.elapsed();
    let begin = Instant::now();
    let by_vector = match (vector, &query.nearest) {
        (None, _) => Vec::new(),
        (Some(vector), None) => arms::vector(view, vector, filter, limit),
        (Some(vector), Some(nearest)) => arms::rescored(view, vector, filter, nearest, limit),
    };
    let vector_time = begin.elapsed();
    let begin = Instant::now();
    let best_words: &[ScoredChunk] = by_words.as_ref().map_or(&[], |scores| scores.best.as_slice());
    let scores = |id| {
        let words = by_words.as_ref().and_then(|scores| scores.of(view, id));
        (words, vector.and_then(|vector| arms::cosine(view, vector, id)))
    };
    let (fused, rule) = fusion::fuse(best_words, &by_vector, query.weight, scores);
    ArmResults {
        fused,
        rule,
        best_keyword: best_words.first().map(|chunk| chunk.score),
        best_vector: by_vector.first().map(|chunk| chunk.score),
        times: SearchTimes { keyword, vector: vector_time, fusion: begin.elapsed(), ..SearchTimes::default() },
    }
}

/// The entries that a filter lets pass.
async fn resolve(
    path: &Path,
    conn: &mut SqliteConnection,
    generation: i64,
    filter: &SearchFilter,
) -> Result<EntryFilter, Error> {
    if filter.is_empty() {
        return Ok(EntryFilter::All);
    }
    let globs = (!filter.paths.is_empty()).then(|| glob_set(&filter.paths)).transpose()?;
    let rows = sqlx::query("SELECT id, key, source, owner, labels FROM entries WHERE generation = ? AND chunks > 0");
    let rows = rows.bind(generation).fetch_all(conn).await.map_err(|e| Error::database(path, e))?;
    let mut entries = std::collections::HashSet::new();
    for row in rows {
        if let Some(id) = passing(path, &row, filter, globs.as_ref())? {
            entries.insert(id);
        }
    }
    Ok(EntryFilter::Only(entries))
}

/// The id of an entry that a filter lets pass.
fn passing(path: &Path, row: &SqliteRow, filter: &SearchFilter, globs: Option<&GlobSet>) -> Result<Option<i64>, Error> {
    let failed = |e| Error::database(path, e);
    let source: String = row.try_get("source").map_err(failed)?;
    let key: String = row.try_get("key").map_err(failed)?;
    let passes = (filter.sources.is_empty() || filter.sources.contains(&source))
        && globs.is_none_or(|globs| key.starts_with('/') && globs.is_match(&key))
        && (filter.owners.is_empty() || filter.owners.contains(&rows::owner(path, row)?));
    if !passes {
        return Ok(None);
    }
    if !filter.labels.is_empty() {
        let labels = rows::labels(path, row)?;
        if !filter.labels.iter().all(|(name, value)| labels.get(name) == Some(value)) {
            return Ok(None);
        }
    }
    row.try_get("id").map(Some).map_err(failed)
}

/// A set of globs over whole paths; a relative one may begin at any directory.
fn glob_set(patterns: &[String]) -> Result<GlobSet, Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let whole = if pattern.starts_with('/') { pattern.clone() } else { format!("**/{pattern}") };
        let failed = |e: globset::Error| Error::Pattern { pattern: pattern.clone(), detail: e.kind().to_string() };
        set.add(Glob::new(&whole).map_err(failed)?);
    }
    set.build().map_err(|e| Error::Pattern { pattern: patterns.join(", "), detail: e.kind().to_string() })
}

/// Reads the texts of the best chunks.
async fn read(path: &Path, conn: &mut SqliteConnection, fused: &[FusedChunk]) -> Result<Vec<Passage>, Error> {
    let ids: Vec<i64> = fused.iter().map(|chunk| chunk.id).collect();
    let sql = format!(
        "SELECT c.id, {CHUNK_COLUMNS}, e.key, e.source, e.owner, e.labels
         FROM chunks c JOIN entries e ON e.id = c.entry WHERE c.id IN (SELECT value FROM json_each(?))"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(serde_json::to_string(&ids).expect("numbers are JSON"));
    let rows = rows.fetch_all(conn).await.map_err(|e| Error::database(path, e))?;
    let failed = |e| Error::database(path, e);
    let mut by_id: HashMap<i64, SqliteRow> = HashMap::new();
    for row in rows {
        by_id.insert(row.try_get("id").map_err(failed)?, row);
    }
    let passage = |chunk: &FusedChunk| {
        let row = by_id.get(&chunk.id);
        let row = row.ok_or_else(|| corrupt(path, format!("chunk {} is in memory alone", chunk.id)))?;
        Ok(Passage {
            score: chunk.score,
            keyword: chunk.keyword,
            vector: chunk.vector,
            entry: crate::entry::EntryKey::stored(row.try_get("key").map_err(failed)?),
            source: row.try_get("source").map_err(failed)?,
            owner: rows::owner(path, row)?,
            labels: rows::labels(path, row)?,
            chunk: rows::chunk(path, row)?,
        })
    };
    fused.iter().map(passage).collect()
}

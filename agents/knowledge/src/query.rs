//! What is searched for, and what is found.

use std::time::Duration;

use artel_task::CallerName;

use crate::embedder::ModelPrint;
use crate::entry::{EntryKey, EntryLabels};
use crate::error::Error;
use crate::fusion::{FusionRule, FusionWeight};
use artel_documents::DocumentChunk;

/// The longest query in bytes: a long question with a page of context.
pub const MAX_QUERY_BYTES: usize = 16 << 10;

/// The most passages of a search: more than a prompt holds.
pub const MAX_TOP_ENTRIES: usize = 200;

/// The candidates of each arm, for each passage that is asked for, and at least.
const CANDIDATE_FACTOR: usize = 5;
const MIN_ARM_CANDIDATES: usize = 50;

/// The most values of each filter, and the longest of them.
pub const MAX_FILTER_VALUES: usize = 64;
/// See [`MAX_FILTER_VALUES`].
pub const MAX_FILTER_BYTES: usize = 4096;

/// The arms that a search uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SearchMode {
    /// Words and vectors; words alone while the vectors of the base are of another model than the query's.
    #[default]
    Hybrid,
    /// Vectors alone.
    Vector,
    /// Words alone.
    Keyword,
}

/// The query as an embedding model sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryEmbedding {
    /// The model.
    pub model: ModelPrint,
    /// Its vector of the query.
    pub values: Vec<f32>,
}

/// Which entries are searched. An empty filter lets all pass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SearchFilter {
    /// Of any of these sources.
    pub sources: Vec<String>,
    /// Whose path matches any of these globs; texts have none.
    pub paths: Vec<String>,
    /// With all of these labels.
    pub labels: EntryLabels,
    /// Of any of these callers.
    pub owners: Vec<CallerName>,
}

impl SearchFilter {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchQuery {
    /// What a person or a model asks; any text.
    pub text: String,
    /// The same as a vector.
    pub embedding: Option<QueryEmbedding>,
    /// The chunks that another store of vectors found nearest; without it, all are compared here. Their scores are computed here.
    pub nearest: Option<Vec<i64>>,
    /// How many passages to find.
    pub top: usize,
    /// The arms.
    pub mode: SearchMode,
    /// Which entries are searched.
    pub filter: SearchFilter,
    /// How much vectors count.
    pub weight: FusionWeight,
}

impl SearchQuery {
    /// How many candidates each arm gives.
    pub fn candidates(&self) -> usize {
        (self.top * CANDIDATE_FACTOR).max(MIN_ARM_CANDIDATES)
    }

    /// A search by words and vectors for ten passages.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            embedding: None,
            nearest: None,
            top: 10,
            mode: SearchMode::default(),
            filter: SearchFilter::default(),
            weight: FusionWeight::default(),
        }
    }

    /// # Errors
    /// [`Error::Limit`] with the field that exceeds its limit.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let limit = |field, found, limit, advice| {
            if found > limit { Err(Error::Limit { field, found, limit, advice }) } else { Ok(()) }
        };
        limit("query", self.text.len(), MAX_QUERY_BYTES, "shorten it (bytes)")?;
        limit("top", self.top, MAX_TOP_ENTRIES, "ask for fewer passages")?;
        let SearchFilter { sources, paths, labels, owners } = &self.filter;
        let lists =
            [("sources", sources.len()), ("paths", paths.len()), ("labels", labels.len()), ("owners", owners.len())];
        for (field, found) in lists {
            limit(field, found, MAX_FILTER_VALUES, "filter by fewer values")?;
        }
        let texts = sources.iter().map(|text| ("sources", text)).chain(paths.iter().map(|text| ("paths", text)));
        let labels = labels.iter().flat_map(|(name, value)| [("labels", name), ("labels", value)]);
        for (field, text) in texts.chain(labels) {
            limit(field, text.len(), MAX_FILTER_BYTES, "shorten its values (bytes)")?;
        }
        Ok(())
    }
}

/// A chunk that was found, with what each arm says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Passage {
    /// The score by which passages are sorted; comparable within one search alone.
    pub score: f32,
    /// The score by words (BM25), if it has one of them.
    pub keyword: Option<f32>,
    /// The cosine of its vector and the query's.
    pub vector: Option<f32>,
    /// The file or text.
    pub entry: EntryKey,
    /// The source that it came from.
    pub source: String,
    /// The caller that it belongs to.
    pub owner: CallerName,
    /// The labels of its source.
    pub labels: EntryLabels,
    /// The text and its place.
    pub chunk: DocumentChunk,
}

/// How long the parts of a search took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SearchTimes {
    /// Resolving filters and waiting for a connection.
    pub filter: Duration,
    /// Scores by words.
    pub keyword: Duration,
    /// Scores by vectors.
    pub vector: Duration,
    /// Fusion of both.
    pub fusion: Duration,
    /// Reading the texts of the passages.
    pub read: Duration,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchResult {
    /// The passages, the best first.
    pub passages: Vec<Passage>,
    /// The best score by words of any chunk.
    pub best_keyword: Option<f32>,
    /// The best cosine of any chunk.
    pub best_vector: Option<f32>,
    /// How both became one.
    pub rule: FusionRule,
    /// Whether vectors were left out, since those of the base are of another model than the query's, or there are none.
    pub is_without_vectors: bool,
    /// The times.
    pub times: SearchTimes,
}

/// From which scores on a base is taken to have an answer. They depend on the model and on the base, and are fitted on questions
/// with and without one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerThresholds {
    /// The best score by words.
    pub keyword: f32,
    /// The best cosine.
    pub vector: f32,
}

impl SearchResult {
    /// Whether there is likely an answer, as the best score of either arm tells. The fused score does not tell: its best candidate
    /// is always near 1.
    pub fn is_answerable(&self, thresholds: AnswerThresholds) -> bool {
        let reaches = |best: Option<f32>, threshold: f32| best.is_some_and(|best| best >= threshold);
        reaches(self.best_keyword, thresholds.keyword) || reaches(self.best_vector, thresholds.vector)
    }
}

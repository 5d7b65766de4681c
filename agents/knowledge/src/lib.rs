//! Knowledge bases: the index of files and texts, and its search.
//!
//! An [`Index`] is one SQLite database with many bases. All chunks of an entry are replaced in one transaction, so a crash leaves
//! the old ones or the new. What a search compares is kept in memory too: the vectors, which are all compared, and the words, which
//! are scored by BM25. A search sees one committed state of both. Embeddings are kept by the hash of their text, so what is
//! unchanged, moved or put back is never embedded again.
//!
//! An [`Indexer`] keeps a base as its sources are: it compares them when it starts, watches them, and reads what changed. If the
//! settings of a base change, it builds another generation beside the one that answers.
//!
//! ```text
//! sources ──walk, watch──▶ plan ──▶ read ──▶ Chunker ──▶ Embedder ──▶ one transaction ──▶ memory
//!                                                                                           │
//! query ──────────────────────────────────▶ words (BM25) and vectors ──▶ fusion ──▶ passages
//! ```
//!
//! This crate knows no roles, no actors, no gRPC and no engine. Documents are read behind the trait [`Chunker`], and embedded
//! behind the trait [`Embedder`].
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arms;
mod chunker;
mod dirty;
mod embedder;
mod entry;
mod erase;
mod error;
mod fusion;
mod generation;
mod index;
mod indexer;
mod job;
mod load;
mod mirror;
mod plan;
mod postings;
mod progress;
mod query;
mod read_file;
mod rows;
mod schema;
mod search;
mod segment;
mod source;
#[cfg(test)]
mod tests;
mod texts;
mod vectors;
mod views;
mod watcher;
mod write;
mod writer;

pub use artel_documents::DocumentChunk;
pub use artel_terms::Language;
pub use chunker::{ChunkError, Chunker};
pub use embedder::{EmbedError, EmbedPurpose, Embedder, ModelPrint};
pub use entry::{ContentHash, EntryKey, EntryLabels, EntryMeta, FileStat, HandedText, StoredEntry};
pub use error::Error;
pub use fusion::{FusionRule, FusionWeight, JudgedPassage, fit};
pub use generation::{GenerationId, IndexSettings, OpenedBase};
pub use index::{GenerationStats, Index};
pub use indexer::{Indexer, IndexerOptions};
pub use mirror::MirrorPoint;
pub use progress::{IndexPhase, IndexProgress};
pub use query::{
    AnswerThresholds, MAX_FILTER_BYTES, MAX_FILTER_VALUES, MAX_QUERY_BYTES, MAX_TOP_ENTRIES, Passage, QueryEmbedding,
    SearchFilter, SearchMode, SearchQuery, SearchResult, SearchTimes,
};
pub use source::{Source, SourceSpec};
pub use texts::MAX_TEXT_BYTES;
pub use write::PreparedChunk;

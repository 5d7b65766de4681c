//! The knowledge of a catalog while it runs: indexed, watched, searched.
//!
//! [`Retrieval`] keeps one [`artel_knowledge`] index. For each knowledge of the catalog it runs an indexer that reads documents in
//! processes of their own and embeds passages by the model that the catalog names; searches embed the question, ask the index, and
//! have a model rerank what was found. Engines are seen through [`TextModels`].
//!
//! This crate knows no actors, no gRPC and no llama.cpp.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answerable;
mod document_chunker;
mod error;
mod found;
mod model_embedder;
mod passage_reranker;
mod retrieval;
mod running_base;
mod sources;
mod text_models;
mod vector_mirror;
mod writing;

pub use artel_documents::ExtractorProgram;
pub use artel_grounding::citations::CitationFilter;
pub use artel_grounding::support;
pub use artel_knowledge::{DocumentChunk, EntryKey, Passage, SearchTimes, StoredEntry};
pub use error::{Error, ModelError};
pub use found::{FoundPassages, shown_source};
pub use retrieval::{PassageQuery, Retrieval, SearchAnswer, SearchRequest};
pub use sources::{AddedText, KnowledgeState, NewText, SourceRecord};
pub use text_models::{TextModels, TextVectors};
pub use writing::WritingCounts;

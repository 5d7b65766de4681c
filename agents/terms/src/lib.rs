//! Texts as terms: what counts as a word, how its spellings become one, and the stem of it in its language.
//!
//! An index and a query are analysed here alike, and so are sentences that are compared.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod language;
mod terms;
mod words;

pub use language::Language;
pub use terms::{ANALYSIS_VERSION, ChunkTerms, QueryWord, TermId, query_words};
pub use words::WritingSystem;

//! Files as text with positions, and the chunks of that text.
//!
//! [`format_of`] tells what a file is, [`load`] makes its bytes a [`LoadedDocument`], [`chunk`] cuts that into pieces that
//! each know their place: bytes, lines, headings, the header of their table, and the page for PDF. All three are pure, and
//! what they spend is bounded by [`LoadLimits`].
//!
//! Parsers of PDF and of archives meet files that were made to break them. [`worker`] therefore runs the whole way, from path
//! to chunks, in a process with a limit of memory, and [`Extractor`] is the other side: it waits with a deadline, ends a
//! process that hangs, starts another one, and gives one [`DocumentError`] for each file.
//!
//! This crate knows nothing of indexes, embeddings, engines or roles, and nothing here is async. How many tokens a text has
//! is an argument.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod chunk;
mod document;
mod encoding;
mod error;
mod extractor;
mod format;
mod limits;
mod load;
mod offsets;
mod outline;
mod read_file;
mod tokens;
mod wire;
pub mod worker;

pub use chunk::{ChunkSize, DocumentChunk, MIN_CHUNK_TOKENS, chunk};
pub use document::LoadedDocument;
pub use error::DocumentError;
pub use extractor::{Extraction, Extractor, ExtractorProgram, FileSource};
pub use format::{Format, HEAD_BYTES, SourceLanguage, format_of};
pub use limits::LoadLimits;
pub use load::load;
pub use read_file::ReadStamp;
pub use tokens::TokenRates;

/// Changes whenever the same file may give other chunks than before, so that an index knows which files to read again.
pub const EXTRACTION_VERSION: u32 = 1;

//! The errors of the index.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why an operation of the index failed. Cheap to clone.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A newer program wrote this index.
    #[error("cannot read the knowledge index {}: its format is {found} and this program knows up to {known}; use the newer program, or delete the file to index anew", .path.display())]
    NewerFormat {
        /// The database.
        path: PathBuf,
        /// The format version on disk.
        found: i64,
        /// The newest one that this program reads.
        known: i64,
    },
    /// The file is a database of something else.
    #[error("cannot read the knowledge index {}: it is the database of another program; choose another file", .path.display())]
    NotAnIndex {
        /// The database.
        path: PathBuf,
    },
    /// The file system does not support the write-ahead log.
    #[error("cannot open the knowledge index {}: its file system gives the journal mode `{mode}` instead of `wal`; use a local disk", .path.display())]
    NoWal {
        /// The database.
        path: PathBuf,
        /// The mode that SQLite fell back to.
        mode: String,
    },
    /// The disk is full; nothing was written, and what was indexed answers on.
    #[error("cannot write the knowledge index {}: the disk is full; free some space, then indexing continues", .path.display())]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// Another process writes to this index.
    #[error("cannot write the knowledge index {}: another process uses it; end it and try again", .path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// The index cannot be written or opened for lack of permission.
    #[error("cannot write the knowledge index {}: it is read-only ({source}); check the owner and the mount of its directory", .path.display())]
    ReadOnly {
        /// The database.
        path: PathBuf,
        /// The error of SQLite.
        source: Arc<sqlx::Error>,
    },
    /// The file is damaged. What it holds is derived from the sources, but for texts that were handed in.
    #[error("cannot read the knowledge index {}: it is corrupt ({detail}); delete the file, then the sources are indexed anew", .path.display())]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Any other error of the database.
    #[error("cannot access the knowledge index {}: {source}", .path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// The error of SQLite.
        source: Arc<sqlx::Error>,
    },
    /// There is no such base, or it was replaced by another generation meanwhile.
    #[error("there is no knowledge base `{base}` in the index; it is created when its sources are first indexed")]
    UnknownBase {
        /// The name.
        base: String,
    },
    /// The generation was dropped meanwhile, since the settings of its base changed.
    #[error(
        "the generation {generation} of a knowledge base is no longer in the index; its settings changed meanwhile"
    )]
    UnknownGeneration {
        /// Its number.
        generation: i64,
    },
    /// A chunk refers to an embedding that is no longer stored.
    #[error("{missing} embeddings of `{key}` are no longer stored; embed its chunks again")]
    MissingEmbeddings {
        /// The entry.
        key: String,
        /// How many are missing.
        missing: usize,
    },
    /// A vector has another number of dimensions than its model.
    #[error(
        "the embedding has {found} dimensions, and its model has {expected}; check the settings of the embedding model"
    )]
    Dimensions {
        /// Those of the vector.
        found: usize,
        /// Those of the model.
        expected: usize,
    },
    /// A part of a request exceeds its limit.
    #[error("the field `{field}` is {found}, and the limit is {limit}; {advice}")]
    Limit {
        /// The field.
        field: &'static str,
        /// What it is.
        found: usize,
        /// What it may be.
        limit: usize,
        /// What to do.
        advice: &'static str,
    },
    /// A glob pattern cannot be read.
    #[error("cannot read the pattern `{pattern}`: {detail}; write it like `docs/**/*.md`")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A search has neither words nor a vector that its mode can use.
    #[error(
        "the mode `{mode}` needs an embedding of the query by the model of the base; embed the query with it, or search by keyword"
    )]
    NoVector {
        /// The mode.
        mode: &'static str,
    },
    /// The index is being closed.
    #[error("the knowledge index {} is closed", .path.display())]
    Closed {
        /// The database.
        path: PathBuf,
    },
}

impl Error {
    /// Classifies an error of SQLite by its remedy.
    pub(crate) fn database(path: &Path, source: sqlx::Error) -> Self {
        let path = path.to_owned();
        // The low byte of an extended code is the primary code.
        match result_code(&source).map(|code| code & 0xff) {
            Some(FULL_CODE) => Self::Full { path },
            Some(PERM_CODE | READONLY_CODE | CANTOPEN_CODE) => Self::ReadOnly { path, source: source.into() },
            Some(CORRUPT_CODE | NOTADB_CODE) => Self::Corrupt { path, detail: source.to_string() },
            Some(BUSY_CODE | LOCKED_CODE) => Self::Busy { path },
            _ => match source {
                sqlx::Error::PoolTimedOut => Self::Busy { path },
                sqlx::Error::PoolClosed => Self::Closed { path },
                source => Self::Database { path, source: source.into() },
            },
        }
    }

    /// Whether what was asked for is at fault.
    pub fn is_of_request(&self) -> bool {
        matches!(self, Self::Limit { .. } | Self::Pattern { .. } | Self::NoVector { .. })
    }

    /// Whether the same operation may succeed later without any change of it.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Busy { .. } | Self::MissingEmbeddings { .. })
    }
}

// The primary result codes of SQLite, https://sqlite.org/rescode.html
const PERM_CODE: u32 = 3;
const BUSY_CODE: u32 = 5;
const LOCKED_CODE: u32 = 6;
const READONLY_CODE: u32 = 8;
const CORRUPT_CODE: u32 = 11;
const FULL_CODE: u32 = 13;
const CANTOPEN_CODE: u32 = 14;
const NOTADB_CODE: u32 = 26;

/// The extended result code, which sqlx gives as text.
fn result_code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error()?.code()?.parse().ok()
}

//! What the index needs of what reads documents.

use std::path::Path;

use async_trait::async_trait;

use artel_documents::DocumentChunk;

/// Why a document has no chunks.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChunkError {
    /// It cannot be read; it is tried again when its content is another.
    #[error("{reason}")]
    Unreadable {
        /// Why, for its owner.
        reason: String,
    },
    /// Whatever reads documents cannot do so now.
    #[error("documents cannot be read now: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// Reads documents into chunks. Dropping the future of [`chunk`](Self::chunk) cancels it.
#[async_trait]
pub trait Chunker: Send + Sync {
    /// What tells its chunks from those of others: the size of chunks, their overlap, the version of the extraction.
    fn settings(&self) -> String;

    /// Whether a file of this name may have a text. Others are not listed at all.
    fn takes(&self, path: &Path) -> bool;

    /// The chunks of a content; the path tells its format and is not opened.
    async fn chunk(&self, path: &Path, content: Vec<u8>) -> Result<Vec<DocumentChunk>, ChunkError>;
}

//! Reads documents in processes of their own.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use artel_documents::{
    ChunkSize, DocumentChunk, DocumentError, EXTRACTION_VERSION, Extractor, ExtractorProgram, FileSource, LoadLimits,
    TokenRates, format_of,
};
use artel_knowledge::{ChunkError, Chunker};
use artel_roles::ChunkSetting;
use async_trait::async_trait;
use tokio::sync::Semaphore;

/// The processes that read documents for one knowledge: while one parses, another is read.
const MAX_PROCESS_ITEMS: usize = 2;

/// Cuts documents into chunks of one size.
pub(crate) struct DocumentChunker {
    program: ExtractorProgram,
    size: ChunkSize,
    /// Those that wait for a document; the others are in use, or have not been started.
    idle: Arc<Mutex<Vec<Extractor>>>,
    running: Arc<Semaphore>,
}

impl DocumentChunker {
    pub(crate) fn new(program: ExtractorProgram, chunk: ChunkSetting) -> Self {
        let size = ChunkSize { tokens: chunk.tokens, overlap: chunk.overlap };
        Self { program, size, idle: Arc::default(), running: Arc::new(Semaphore::new(MAX_PROCESS_ITEMS)) }
    }
}

#[async_trait]
impl Chunker for DocumentChunker {
    fn settings(&self) -> String {
        format!("{} tokens, overlap {}, extraction {EXTRACTION_VERSION}", self.size.tokens, self.size.overlap)
    }

    fn takes(&self, path: &Path) -> bool {
        // What its first bytes say is found out when it is read.
        format_of(path, b"").is_some()
    }

    async fn chunk(&self, path: &Path, content: Vec<u8>) -> Result<Vec<DocumentChunk>, ChunkError> {
        let unavailable = |reason: &str| ChunkError::Unavailable { reason: reason.to_owned() };
        let permit = self.running.clone().acquire_owned().await.map_err(|_| unavailable("the daemon is ending"))?;
        let name = path.to_string_lossy().into_owned();
        let (idle, program, size) = (self.idle.clone(), self.program.clone(), self.size);
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let known = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let new = || Extractor::new(program, LoadLimits::default(), size, TokenRates::default());
            let mut extractor = known.unwrap_or_else(new);
            let read = extractor.extract(FileSource::Content { name: &name, bytes: &content }, None);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(extractor);
            read
        });
        let read = read.await.map_err(|_| unavailable("the thread that reads documents ended"))?;
        let extraction = read.map_err(|error| chunk_error(&error))?;
        for warning in &extraction.warnings {
            tracing::info!(file = %path.display(), %warning, "a part of a document was not read");
        }
        Ok(extraction.chunks)
    }
}

fn chunk_error(error: &DocumentError) -> ChunkError {
    let reason = error.to_string();
    if error.may_pass() { ChunkError::Unavailable { reason } } else { ChunkError::Unreadable { reason } }
}

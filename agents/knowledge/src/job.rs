//! The work on one entry: it is read, cut into chunks, embedded and stored.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::chunker::{ChunkError, Chunker};
use crate::embedder::{EmbedError, EmbedPurpose, Embedder};
use crate::entry::{ContentHash, EntryKey, EntryMeta, FileStat, HandedText, StoredEntry};
use crate::error::Error;
use crate::generation::OpenedBase;
use crate::index::Index;
use crate::read_file::{self, FileReadError};
use crate::source::{FoundFile, Source};
use crate::write::PreparedChunk;
use artel_terms::Language;

/// The texts of one call of the embedder, in number and in bytes: enough for a full batch of an engine, few enough that little is
/// lost when the process ends.
const MAX_BATCH_TEXTS: usize = 32;
const MAX_BATCH_BYTES: usize = 128 << 10;

/// The most chunks of one entry; a file with more is data and no document.
const MAX_ENTRY_CHUNKS: usize = 50_000;

/// How often an entry is stored anew because embeddings that it relies on were erased meanwhile.
const STORE_ATTEMPTS: u32 = 3;

/// The unit in which bytes of files in memory are counted.
const PERMIT_BYTES: u64 = 1 << 10;

/// What all jobs of a base share.
pub(crate) struct JobContext {
    pub(crate) index: Index,
    pub(crate) sources: Vec<Source>,
    pub(crate) embedder: Option<Arc<dyn Embedder>>,
    pub(crate) chunker: Arc<dyn Chunker>,
    pub(crate) languages: Vec<Language>,
    pub(crate) max_file_bytes: u64,
    /// Bounds the bytes of all files that are in memory at once.
    pub(crate) memory: Semaphore,
}

/// The permits of [`JobContext::memory`] for files of this size in all.
pub(crate) fn memory_permits(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX).max(1)
}

/// What a job works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JobInput {
    File(FoundFile),
    Text(HandedText),
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum JobOutcome {
    /// It is in the index, with chunks or with the reason why it has none.
    Stored { entry: StoredEntry, embedded: u64 },
    /// Its content is what the index has.
    Same(StoredEntry),
    /// It is not there any more.
    Missing,
    /// It changed meanwhile.
    Changed,
    /// Something else is at fault, and it is tried again.
    Postponed(String),
    /// The generation is no longer in use.
    Outdated,
}

/// Why a job ended early.
enum JobStop {
    Unreadable(String),
    Postponed(String),
    Failed(Error),
}

impl From<Error> for JobStop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A content with what is known of it.
struct JobContent {
    name: PathBuf,
    meta: EntryMeta,
    bytes: Vec<u8>,
    /// Whether the hash is that of the whole content; else another attempt is worth it whenever something changes.
    reason: Option<String>,
}

/// Brings an entry up to date. Dropping the future cancels it; a write that has begun is completed.
pub(crate) async fn run(
    context: Arc<JobContext>,
    base: OpenedBase,
    key: EntryKey,
    input: JobInput,
    known: Option<StoredEntry>,
) -> JobOutcome {
    let bytes = match &input {
        JobInput::File(file) => file.stat.bytes,
        JobInput::Text(text) => text.text.len() as u64,
    };
    let permits = memory_permits(bytes.min(context.max_file_bytes));
    let Ok(_memory) = context.memory.acquire_many(permits).await else { return JobOutcome::Outdated };
    let path = key.path().map(Path::to_owned);
    let content = match read(&context, input).await {
        Ok(content) => content,
        Err(outcome) => return outcome,
    };
    match store(&context, base, &key, content, known, path.as_deref()).await {
        Ok(outcome) => outcome,
        Err(Error::UnknownGeneration { .. }) => JobOutcome::Outdated,
        Err(error) => JobOutcome::Postponed(error.to_string()),
    }
}

async fn read(context: &Arc<JobContext>, input: JobInput) -> Result<JobContent, JobOutcome> {
    let file = match input {
        JobInput::Text(text) => return Ok(of_text(text)),
        JobInput::File(file) => file,
    };
    let source = &context.sources[file.source];
    let (path, limit) = (file.path.clone(), context.max_file_bytes);
    let read = tokio::task::spawn_blocking(move || {
        let content = read_file::read_file(&path, limit)?;
        let hash = ContentHash::of(&content.bytes);
        Ok::<_, FileReadError>((content, hash))
    });
    let meta = |stat: FileStat, hash, is_fresh| EntryMeta {
        source: source.name.clone(),
        owner: source.owner.clone(),
        labels: source.labels.clone(),
        hash,
        stat,
        is_fresh,
    };
    // Without a content, what is told of the file stands for it.
    let of_stat = |stat: FileStat| ContentHash::of(format!("{stat:?}").as_bytes());
    let read = read.await.map_err(|_| JobOutcome::Postponed("the program is ending".into()))?;
    match read {
        Ok((content, hash)) => Ok(JobContent {
            name: file.path,
            meta: meta(content.stat, hash, content.is_fresh),
            bytes: content.bytes,
            reason: None,
        }),
        Err(FileReadError::Missing) => Err(JobOutcome::Missing),
        Err(FileReadError::Changed) => Err(JobOutcome::Changed),
        Err(FileReadError::TooLarge(stat)) => Ok(JobContent {
            name: file.path,
            meta: meta(stat, of_stat(stat), false),
            bytes: Vec::new(),
            reason: Some(format!("it has {} bytes, and the limit is {limit}", stat.bytes)),
        }),
        Err(FileReadError::Unreadable(error)) => Ok(JobContent {
            // Rights can change without a trace in size and time: it is tried again at every look.
            meta: meta(file.stat, of_stat(file.stat), true),
            name: file.path,
            bytes: Vec::new(),
            reason: Some(error.to_string()),
        }),
    }
}

fn of_text(text: HandedText) -> JobContent {
    let hash = text_hash(&text);
    JobContent {
        name: PathBuf::from(&text.name),
        meta: text_meta(&text, hash),
        bytes: text.text.into_bytes(),
        reason: None,
    }
}

/// The hash of a text with the name that tells its format.
pub(crate) fn text_hash(text: &HandedText) -> ContentHash {
    ContentHash::of(format!("{}\0{}", text.name, text.text).as_bytes())
}

pub(crate) fn text_meta(text: &HandedText, hash: ContentHash) -> EntryMeta {
    EntryMeta {
        source: TEXT_SOURCE.into(),
        owner: text.owner.clone(),
        labels: text.labels.clone(),
        hash,
        stat: FileStat { bytes: text.text.len() as u64, ..FileStat::default() },
        is_fresh: false,
    }
}

/// The name of the source of texts that were handed in.
pub(crate) const TEXT_SOURCE: &str = "texts";

async fn store(
    context: &Arc<JobContext>,
    base: OpenedBase,
    key: &EntryKey,
    content: JobContent,
    known: Option<StoredEntry>,
    path: Option<&Path>,
) -> Result<JobOutcome, Error> {
    let meta = content.meta.clone();
    if let Some(known) = known.filter(|known| known.meta.hash == meta.hash)
        && context.index.touch(base, key, meta.clone()).await?
    {
        return Ok(JobOutcome::Same(StoredEntry { meta, ..known }));
    }
    for _ in 0..STORE_ATTEMPTS {
        let prepared = match &content.reason {
            Some(reason) => Err(JobStop::Unreadable(reason.clone())),
            None => prepare(context, &content).await,
        };
        let is_unchanged = path.is_none_or(|path| read_file::is_unchanged(path, meta.stat));
        if !is_unchanged {
            return Ok(JobOutcome::Changed);
        }
        let (chunks, embedded) = match prepared {
            Ok(prepared) => prepared,
            Err(JobStop::Failed(error)) => return Err(error),
            Err(JobStop::Postponed(reason)) => return Ok(JobOutcome::Postponed(reason)),
            Err(JobStop::Unreadable(reason)) => {
                context.index.fail(base, key, meta.clone(), reason.clone()).await?;
                let entry = StoredEntry { key: key.clone(), meta, reason: Some(reason), chunks: 0 };
                return Ok(JobOutcome::Stored { entry, embedded: 0 });
            }
        };
        let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        match context.index.replace(base, key, meta.clone(), chunks).await {
            Err(Error::MissingEmbeddings { .. }) => {}
            Err(error) => return Err(error),
            Ok(()) => {
                let entry = StoredEntry { key: key.clone(), meta, reason: None, chunks: count };
                return Ok(JobOutcome::Stored { entry, embedded });
            }
        }
    }
    Ok(JobOutcome::Postponed("its embeddings were erased while it was stored".into()))
}

/// Cuts a content into chunks and embeds those that are new. Returns them with the number of new ones.
async fn prepare(context: &Arc<JobContext>, content: &JobContent) -> Result<(Vec<PreparedChunk>, u64), JobStop> {
    let chunks = context.chunker.chunk(&content.name, content.bytes.clone()).await.map_err(|error| match error {
        ChunkError::Unreadable { reason } => JobStop::Unreadable(reason),
        ChunkError::Unavailable { .. } => JobStop::Postponed(error.to_string()),
    })?;
    if chunks.len() > MAX_ENTRY_CHUNKS {
        let reason = format!("it has {} chunks, and the limit is {MAX_ENTRY_CHUNKS}", chunks.len());
        return Err(JobStop::Unreadable(reason));
    }
    let languages = context.languages.clone();
    let prepared = tokio::task::spawn_blocking(move || {
        chunks.into_iter().map(|chunk| PreparedChunk::of(chunk, &languages)).collect::<Vec<_>>()
    });
    let prepared = prepared.await.map_err(|_| JobStop::Postponed("the program is ending".into()))?;
    let embedded = match &context.embedder {
        Some(embedder) => embed(context, embedder, &prepared).await?,
        None => 0,
    };
    Ok((prepared, embedded))
}

/// Embeds the chunks whose texts have no embedding, and keeps each batch. Returns their number.
async fn embed(
    context: &Arc<JobContext>,
    embedder: &Arc<dyn Embedder>,
    chunks: &[PreparedChunk],
) -> Result<u64, JobStop> {
    let model = embedder.model();
    let hashes: Vec<ContentHash> = chunks.iter().map(PreparedChunk::hash).collect();
    let mut missing: HashSet<ContentHash> = context.index.missing_embeddings(&model, &hashes).await?;
    let missing: Vec<&PreparedChunk> = chunks.iter().filter(|chunk| missing.remove(&chunk.hash())).collect();
    let mut left = missing.as_slice();
    while !left.is_empty() {
        let mut bytes = 0;
        let fits = |chunk: &&&PreparedChunk| {
            bytes += chunk.embedded_text().len();
            bytes <= MAX_BATCH_BYTES
        };
        let (batch, rest) = left.split_at(left.iter().take(MAX_BATCH_TEXTS).take_while(fits).count().max(1));
        left = rest;
        let texts: Vec<String> = batch.iter().map(|chunk| chunk.embedded_text().to_owned()).collect();
        let vectors = embedder.embed(texts, EmbedPurpose::Passage).await.map_err(|error| match error {
            EmbedError::Refused { .. } => JobStop::Unreadable(error.to_string()),
            EmbedError::Unavailable { .. } => JobStop::Postponed(error.to_string()),
        })?;
        if vectors.len() != batch.len() {
            let (found, expected) = (vectors.len(), batch.len());
            return Err(JobStop::Postponed(format!("the embedding model gave {found} vectors for {expected} texts")));
        }
        let vectors = batch.iter().map(|chunk| chunk.hash()).zip(vectors).collect();
        context.index.store_embeddings(&model, vectors).await?;
    }
    Ok(missing.len() as u64)
}

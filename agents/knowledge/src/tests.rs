//! Tests of the index as a whole: what is stored, found, replaced and erased.

mod base;
mod generations;
mod indexing;
mod mirror;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use artel_task::CallerName;
use async_trait::async_trait;
use tempfile::TempDir;

use crate::{
    ChunkError, Chunker, ContentHash, DocumentChunk, EmbedError, EmbedPurpose, Embedder, EntryKey, EntryLabels,
    EntryMeta, FileStat, Index, IndexSettings, Language, ModelPrint, OpenedBase, PreparedChunk, SearchQuery,
    SearchResult, Source, SourceSpec,
};

/// An embedder whose vectors follow from the words of a text: texts with the same words are alike.
#[derive(Debug, Default)]
pub(crate) struct WordEmbedder {
    model: String,
    /// The texts that it was given.
    pub(crate) embedded: AtomicU64,
}

pub(crate) const WORD_DIMENSIONS: usize = 32;

impl WordEmbedder {
    pub(crate) fn new(model: &str) -> Arc<Self> {
        Arc::new(Self { model: model.into(), embedded: AtomicU64::new(0) })
    }

    pub(crate) fn vector(text: &str) -> Vec<f32> {
        let mut values = vec![0.01; WORD_DIMENSIONS];
        for word in text.split_whitespace() {
            let hash = ContentHash::of(word.to_lowercase().as_bytes());
            values[usize::from(hash.as_bytes()[0]) % WORD_DIMENSIONS] += 1.0;
        }
        values
    }
}

#[async_trait]
impl Embedder for WordEmbedder {
    fn model(&self) -> ModelPrint {
        ModelPrint::new(&*self.model)
    }

    fn dimensions(&self) -> usize {
        WORD_DIMENSIONS
    }

    fn max_tokens(&self) -> usize {
        512
    }

    async fn embed(&self, texts: Vec<String>, _purpose: EmbedPurpose) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.embedded.fetch_add(texts.len() as u64, Relaxed);
        Ok(texts.iter().map(|text| Self::vector(text)).collect())
    }
}

/// A chunk for each paragraph of a text. A file with `broken` in it cannot be read.
#[derive(Debug, Default)]
pub(crate) struct ParagraphChunker {
    /// How often a content was given to it.
    pub(crate) read: AtomicU64,
}

#[async_trait]
impl Chunker for ParagraphChunker {
    fn settings(&self) -> String {
        "paragraphs".into()
    }

    fn takes(&self, path: &Path) -> bool {
        path.extension().is_some_and(|ending| ending == "md" || ending == "txt")
    }

    async fn chunk(&self, _path: &Path, content: Vec<u8>) -> Result<Vec<DocumentChunk>, ChunkError> {
        self.read.fetch_add(1, Relaxed);
        let unreadable = |reason: &str| ChunkError::Unreadable { reason: reason.into() };
        let text = String::from_utf8(content).map_err(|_| unreadable("it is not UTF-8"))?;
        if text.contains("broken") {
            return Err(unreadable("it is broken"));
        }
        Ok(chunks(&text))
    }
}

pub(crate) fn chunks(text: &str) -> Vec<DocumentChunk> {
    let mut at = 0;
    let mut line = 1;
    let mut chunks = Vec::new();
    for part in text.split_inclusive("\n\n") {
        let body = part.trim_end();
        let lines = u32::try_from(body.lines().count()).unwrap();
        if !body.is_empty() {
            chunks.push(DocumentChunk {
                text: body.to_owned(),
                context: Vec::new(),
                header: None,
                bytes: at..at + body.len() as u64,
                lines: line..=line + lines - 1,
                page: None,
            });
        }
        at += part.len() as u64;
        line += u32::try_from(part.matches('\n').count()).unwrap();
    }
    chunks
}

pub(crate) async fn open(dir: &TempDir) -> Index {
    Index::open(&dir.path().join("knowledge.sqlite")).await.unwrap()
}

pub(crate) fn settings(model: &str, chunking: &str) -> IndexSettings {
    IndexSettings {
        model: Some((ModelPrint::new(model), WORD_DIMENSIONS)),
        chunking: chunking.into(),
        languages: Language::ALL.to_vec(),
    }
}

pub(crate) fn key(path: &str) -> EntryKey {
    EntryKey::file(Path::new(path)).unwrap()
}

pub(crate) fn meta(text: &str) -> EntryMeta {
    EntryMeta {
        source: "docs".into(),
        owner: CallerName::owner(),
        labels: EntryLabels::new(),
        hash: ContentHash::of(text.as_bytes()),
        stat: FileStat { bytes: text.len() as u64, mtime_ns: 1, inode: 1 },
        is_fresh: false,
    }
}

/// Stores a text under a path as an indexer would.
pub(crate) async fn put(index: &Index, base: OpenedBase, model: &str, path: &str, text: &str, meta: EntryMeta) {
    let prepared: Vec<_> = chunks(text).into_iter().map(|chunk| PreparedChunk::of(chunk, &Language::ALL)).collect();
    let vectors = prepared.iter().map(|chunk| (chunk.hash(), WordEmbedder::vector(chunk.embedded_text()))).collect();
    index.store_embeddings(&ModelPrint::new(model), vectors).await.unwrap();
    index.replace(base, &key(path), meta, prepared).await.unwrap();
}

pub(crate) fn query(model: &str, text: &str) -> SearchQuery {
    SearchQuery {
        embedding: Some(crate::QueryEmbedding { model: ModelPrint::new(model), values: WordEmbedder::vector(text) }),
        ..SearchQuery::new(text)
    }
}

pub(crate) fn texts(found: &SearchResult) -> Vec<&str> {
    found.passages.iter().map(|passage| passage.chunk.text.as_str()).collect()
}

pub(crate) fn source(dir: &Path) -> Source {
    Source::new(SourceSpec {
        name: "docs".into(),
        path: dir.to_str().unwrap().into(),
        exclude: Vec::new(),
        includes_hidden: false,
        owner: CallerName::owner(),
        labels: EntryLabels::new(),
    })
    .unwrap()
}

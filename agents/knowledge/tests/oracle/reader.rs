//! How the tests read and embed: paragraphs, and vectors that follow from the text.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use artel_knowledge::{
    ChunkError, Chunker, DocumentChunk, EmbedError, EmbedPurpose, Embedder, EntryLabels, Index, IndexSettings, Indexer,
    IndexerOptions, Language, ModelPrint, Source, SourceSpec,
};
use artel_task::CallerName;
use async_trait::async_trait;

const HASH_DIMENSIONS: usize = 16;

/// The base of the tests.
pub(crate) const BASE: &str = "oracle";

#[derive(Debug)]
pub(crate) struct HashEmbedder;

pub(crate) fn vector(text: &str) -> Vec<f32> {
    let value = |dimension: usize| {
        let mut hasher = DefaultHasher::new();
        (dimension, text).hash(&mut hasher);
        (hasher.finish() % 2001) as f32 / 1000.0 - 1.0
    };
    (0..HASH_DIMENSIONS).map(value).collect()
}

#[async_trait]
impl Embedder for HashEmbedder {
    fn model(&self) -> ModelPrint {
        ModelPrint::new("hash")
    }

    fn dimensions(&self) -> usize {
        HASH_DIMENSIONS
    }

    fn max_tokens(&self) -> usize {
        512
    }

    async fn embed(&self, texts: Vec<String>, _purpose: EmbedPurpose) -> Result<Vec<Vec<f32>>, EmbedError> {
        // As an engine would, it lets others run meanwhile.
        tokio::task::yield_now().await;
        Ok(texts.iter().map(|text| vector(text)).collect())
    }
}

#[derive(Debug)]
pub(crate) struct ParagraphReader;

/// The paragraphs of a text and where they begin.
pub(crate) fn paragraphs(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split_inclusive("\n\n").filter_map(move |part| {
        let begin = at;
        at += part.len();
        let body = part.trim_end();
        (!body.is_empty()).then_some((begin, body))
    })
}

#[async_trait]
impl Chunker for ParagraphReader {
    fn settings(&self) -> String {
        "paragraphs".into()
    }

    fn takes(&self, path: &Path) -> bool {
        path.extension().is_some_and(|ending| ending == "md")
    }

    async fn chunk(&self, _path: &Path, content: Vec<u8>) -> Result<Vec<DocumentChunk>, ChunkError> {
        let text =
            String::from_utf8(content).map_err(|_| ChunkError::Unreadable { reason: "it is not UTF-8".into() })?;
        let chunk = |(begin, body): (usize, &str)| {
            let line = u32::try_from(text[..begin].matches('\n').count()).unwrap() + 1;
            let lines = u32::try_from(body.lines().count()).unwrap();
            DocumentChunk {
                text: body.to_owned(),
                context: Vec::new(),
                header: None,
                bytes: begin as u64..(begin + body.len()) as u64,
                lines: line..=line + lines - 1,
                page: None,
            }
        };
        Ok(paragraphs(&text).map(chunk).collect())
    }
}

pub(crate) fn settings() -> IndexSettings {
    IndexSettings {
        model: Some((HashEmbedder.model(), HASH_DIMENSIONS)),
        chunking: ParagraphReader.settings(),
        languages: Language::ALL.to_vec(),
    }
}

pub(crate) async fn start(index: &Index, docs: &Path, watches: bool) -> Indexer {
    let spec = SourceSpec {
        name: "docs".into(),
        path: docs.to_str().unwrap().into(),
        exclude: Vec::new(),
        includes_hidden: false,
        owner: CallerName::owner(),
        labels: EntryLabels::new(),
    };
    let options = IndexerOptions {
        quiet_period: Duration::from_millis(10),
        max_quiet_period: Duration::from_millis(40),
        settle_delay: Duration::from_millis(150),
        // What the watcher misses must not be found by looking at everything now and then.
        rescan_interval: Duration::from_secs(3600),
        retry_delay: Duration::from_millis(20),
        watches,
        ..IndexerOptions::default()
    };
    let sources = vec![Source::new(spec).unwrap()];
    let embedder: Arc<dyn Embedder> = Arc::new(HashEmbedder);
    let indexer = Indexer::start(index.clone(), BASE, sources, Some(embedder), Arc::new(ParagraphReader), options);
    indexer.await.unwrap()
}

/// Indexes a tree as it is now.
pub(crate) async fn index_once(docs: &Path, database: &Path) {
    let index = Index::open(database).await.unwrap();
    let indexer = start(&index, docs, false).await;
    indexer.idle().await;
    indexer.stop().await;
    index.close().await;
}

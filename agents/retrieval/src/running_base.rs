//! One knowledge that is kept as its sources are.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use artel_documents::ExtractorProgram;
use artel_knowledge::{
    Embedder, Index, IndexPhase, IndexProgress, Indexer, IndexerOptions, Language, Source, SourceSpec,
};
use artel_roles::{Knowledge, KnowledgeSource, Model};
use artel_task::CallerName;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::document_chunker::DocumentChunker;
use crate::model_embedder::ModelEmbedder;
use crate::text_models::TextModels;
use crate::vector_mirror::VectorMirror;

/// The first delay after which an indexer that could not start is started again; it doubles.
const MIN_START_DELAY: Duration = Duration::from_secs(1);
/// The longest such delay: a model may be fetched, or get the memory of another one, at any time.
const MAX_START_DELAY: Duration = Duration::from_secs(60);

/// How long a search waits for an index that is being opened: an embedding model may have to be loaded.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A knowledge of the catalog with its indexer. Dropping it ends the work on it.
pub(crate) struct RunningBase {
    pub(crate) knowledge: Arc<Knowledge>,
    /// The model that embeds its passages.
    pub(crate) embedding: Option<Arc<Model>>,
    indexer: watch::Receiver<Option<Arc<Indexer>>>,
    /// Why the indexer has not started.
    problem: Arc<Mutex<Option<String>>>,
    /// Its vectors in another store.
    pub(crate) mirror: Option<VectorMirror>,
    _start: AbortOnDropHandle<()>,
}

impl RunningBase {
    pub(crate) fn start(
        knowledge: Arc<Knowledge>,
        embedding: Option<Arc<Model>>,
        index: Index,
        models: Arc<dyn TextModels>,
        program: ExtractorProgram,
    ) -> Self {
        let (started, indexer) = watch::channel(None);
        let problem: Arc<Mutex<Option<String>>> = Arc::default();
        let mirror = knowledge.store.clone();
        let mirror = mirror.map(|setting| VectorMirror::start(knowledge.name.clone(), setting, index.clone()));
        let (base, model, told) = (knowledge.clone(), embedding.clone(), problem.clone());
        let start = tokio::spawn(async move {
            let mut delay = MIN_START_DELAY;
            loop {
                match start(&base, model.as_ref(), &index, &models, &program).await {
                    Ok(indexer) => {
                        *told.lock().unwrap_or_else(PoisonError::into_inner) = None;
                        started.send_replace(Some(Arc::new(indexer)));
                        // The indexer lives as long as this task.
                        std::future::pending::<()>().await;
                    }
                    Err(reason) => {
                        tracing::warn!(knowledge = %base.name, %reason, "a knowledge cannot be indexed yet: trying again");
                        *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                    }
                }
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(MAX_START_DELAY);
            }
        });
        Self { knowledge, embedding, indexer, problem, mirror, _start: AbortOnDropHandle::new(start) }
    }

    /// The indexer, once it has started.
    pub(crate) fn indexer(&self) -> Option<Arc<Indexer>> {
        self.indexer.borrow().clone()
    }

    /// Waits until it can be searched, for a while: a daemon that has just started opens its indexes.
    pub(crate) async fn opened(&self) {
        let mut indexer = self.indexer.clone();
        // Without an indexer by then, the search tells why.
        drop(tokio::time::timeout(OPEN_TIMEOUT, indexer.wait_for(Option::is_some)).await);
    }

    /// How far it is; `None` before it has started.
    pub(crate) fn progress(&self) -> Option<IndexProgress> {
        self.indexer().map(|indexer| indexer.progress().borrow().clone())
    }

    /// Whether something is not indexed yet.
    pub(crate) fn is_behind(&self) -> bool {
        self.progress().is_none_or(|progress| progress.phase != IndexPhase::Idle)
    }

    /// What is in the way of indexing, or of writing to another store.
    pub(crate) fn problem(&self) -> Option<String> {
        let not_started = self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let indexing = not_started.or_else(|| self.progress()?.problem);
        indexing.or_else(|| self.mirror.as_ref()?.problem())
    }
}

async fn start(
    knowledge: &Knowledge,
    model: Option<&Arc<Model>>,
    index: &Index,
    models: &Arc<dyn TextModels>,
    program: &ExtractorProgram,
) -> Result<Indexer, String> {
    let sources = knowledge.sources.iter().map(|source| source_of(source, knowledge)).collect::<Result<_, _>>();
    let sources: Vec<Source> = sources.map_err(|error: artel_knowledge::Error| error.to_string())?;
    let embedder = match model {
        Some(model) => {
            let embedder = ModelEmbedder::of(models.clone(), model.clone()).await.map_err(|e| e.to_string())?;
            Some(Arc::new(embedder) as Arc<dyn Embedder>)
        }
        None => None,
    };
    let chunker = Arc::new(DocumentChunker::new(program.clone(), knowledge.chunk));
    let named: Vec<Language> =
        knowledge.languages.iter().filter_map(|language| Language::from_code(language.code())).collect();
    let languages = if named.is_empty() { Language::ALL.to_vec() } else { named };
    let options = IndexerOptions { languages, ..IndexerOptions::default() };
    let started = Indexer::start(index.clone(), knowledge.name.as_str(), sources, embedder, chunker, options);
    started.await.map_err(|error| error.to_string())
}

/// Files belong to no caller: they have the name of the daemon's owner, and every caller finds them.
fn source_of(source: &KnowledgeSource, knowledge: &Knowledge) -> Result<Source, artel_knowledge::Error> {
    let KnowledgeSource { path, pattern, exclude, labels } = source;
    let directory = path.display().to_string();
    let path = match pattern {
        Some(pattern) => format!("{}/{pattern}", directory.trim_end_matches('/')),
        None => directory,
    };
    Source::new(SourceSpec {
        name: path.clone(),
        path,
        exclude: knowledge.exclude.iter().chain(exclude).cloned().collect(),
        includes_hidden: false,
        owner: CallerName::owner(),
        labels: labels.clone(),
    })
}

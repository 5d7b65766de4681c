//! The index of candidates: everything that is computed about them before a question is asked.

mod warmup;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use artel_roles::Model;
use artel_router::{CandidateDocument, Embedding, RouterSettings, RoutingIndex, needs_embeddings};
use artel_task::event::{Failure, FailureCode, Signal};
use tokio::sync::watch;

use crate::candidate::Candidate;
use crate::embedding_cache::{self, EmbeddingCache, ModelFingerprint, TextHash};
use crate::engine_evidence::{LabelBaseline, embed};
use crate::request::{RouterEngines, RoutingRequest};

/// Embeddings held in memory: all examples of some hundred roles.
const MAX_EMBEDDINGS: usize = 32_768;
/// Sets held in memory: those of a catalog's routers, and of the catalog before it.
const MAX_SETS: usize = 16;
/// Texts that are embedded at once: between two chunks an abandoned decision is given up, and other requests run.
const CHUNK_TEXTS: usize = 16;
/// The number of new embeddings that is written to disk before all are computed.
const MIN_UNSAVED_TEXTS: usize = 512;

const NO_PANIC: &str = "no code panics while it holds the lock of the embeddings";

/// The index of one set of candidates.
pub(crate) struct CandidateSet {
    candidates: Vec<Candidate>,
    settings: Arc<RouterSettings>,
    embedding_model: Arc<Model>,
    label_model: Option<Arc<Model>>,
    /// It has embeddings if a signal needed them.
    pub(crate) index: RoutingIndex,
    pub(crate) label_baseline: LabelBaseline,
}

impl CandidateSet {
    fn serves(&self, request: &RoutingRequest, with_embeddings: bool) -> bool {
        let same = |(one, other): (&Candidate, &Candidate)| one.is_same(other);
        let settings = &request.policy.settings;
        self.candidates.len() == request.candidates.len()
            && (self.index.has_embeddings() || !with_embeddings)
            && self.embedding_model == request.embedding_model
            && self.label_model == request.label_model
            && (Arc::ptr_eq(&self.settings, settings) || self.settings.background == settings.background)
            && self.candidates.iter().zip(&request.candidates).all(same)
    }
}

/// The indexed sets, and the embeddings of all their texts.
pub(crate) struct CandidateIndex {
    /// Least recently used first.
    sets: Mutex<Vec<Arc<CandidateSet>>>,
    embeddings: Arc<Mutex<EmbeddingTable>>,
    indexing: tokio::sync::Mutex<()>,
    /// How many decisions are in progress: the warm-up waits for them.
    decisions: watch::Sender<usize>,
    cache: Option<Arc<EmbeddingCache>>,
}

/// Embeddings of texts by one model: those of different models are not comparable.
#[derive(Default)]
struct EmbeddingTable {
    model: Option<Arc<Model>>,
    /// The key of the model's file in the cache on disk.
    fingerprint: Option<ModelFingerprint>,
    embeddings: HashMap<TextHash, Embedding>,
    /// How many of them are not on disk.
    unsaved: usize,
}

impl CandidateIndex {
    /// An index whose embeddings are kept on disk if there is a cache.
    pub(crate) fn new(cache: Option<Arc<EmbeddingCache>>) -> Self {
        let (sets, embeddings, indexing) = (Mutex::default(), Arc::default(), tokio::sync::Mutex::default());
        Self { sets, embeddings, indexing, decisions: watch::Sender::new(0), cache }
    }

    /// The index of the request's candidates, and the tokens that were computed for it. One request indexes at a time: those
    /// that wait meanwhile find its result.
    pub(crate) async fn prepare(
        &self,
        request: &RoutingRequest,
        signals: &[Signal],
        engines: &RouterEngines,
        is_wanted: impl Fn() -> bool,
    ) -> Result<(Arc<CandidateSet>, u32), Failure> {
        let with_embeddings = needs_embeddings(signals);
        if let Some(set) = self.find(request, with_embeddings) {
            return Ok((set, 0));
        }
        let _indexing = self.indexing.lock().await;
        if let Some(set) = self.find(request, with_embeddings) {
            return Ok((set, 0));
        }
        let mut tokens = 0;
        let embeddings = match with_embeddings {
            true => Some(self.embed_all(request, engines, is_wanted, &mut tokens).await?),
            false => None,
        };
        let (candidates, settings) = (request.candidates.clone(), request.policy.settings.clone());
        let (embedding_model, label_model) = (request.embedding_model.clone(), request.label_model.clone());
        // Fitting the classifier is long enough to hold up other tasks on this thread.
        let set = tokio::task::spawn_blocking(move || {
            let documents: Vec<CandidateDocument<'_>> = candidates.iter().map(Candidate::document).collect();
            let index = RoutingIndex::new(&documents, &settings.background, embeddings.as_ref());
            let label_baseline = LabelBaseline::default();
            Arc::new(CandidateSet { candidates, settings, embedding_model, label_model, index, label_baseline })
        });
        let set = set.await.map_err(|e| {
            Failure::new(FailureCode::Internal, format!("failed to index the router's candidates: {e}"))
        })?;
        let mut sets = self.sets();
        if sets.len() >= MAX_SETS {
            sets.remove(0);
        }
        sets.push(set.clone());
        Ok((set, tokens))
    }

    /// Finds a set and moves it to the end, since the least recently used is evicted.
    fn find(&self, request: &RoutingRequest, with_embeddings: bool) -> Option<Arc<CandidateSet>> {
        let mut sets = self.sets();
        let at = sets.iter().position(|set| set.serves(request, with_embeddings))?;
        let set = sets.remove(at);
        sets.push(set.clone());
        Some(set)
    }

    /// The embeddings of all texts of the candidates and of the background.
    async fn embed_all(
        &self,
        request: &RoutingRequest,
        engines: &RouterEngines,
        is_wanted: impl Fn() -> bool,
        tokens: &mut u32,
    ) -> Result<HashMap<String, Embedding>, Failure> {
        let texts = request.texts();
        self.use_model(&request.embedding_model).await?;
        let mut known = self.known(&texts);
        let missing: Vec<&str> = texts.into_iter().filter(|text| !known.contains_key(*text)).collect();
        for texts in missing.chunks(CHUNK_TEXTS) {
            if !is_wanted() {
                return Err(Failure::new(
                    FailureCode::Timeout,
                    "the decision was abandoned: its step no longer waits for it",
                ));
            }
            let (embeddings, computed) = self.embed(texts, &request.embedding_model, engines).await?;
            *tokens += computed;
            known.extend(texts.iter().zip(embeddings).map(|(text, embedding)| ((*text).to_owned(), embedding)));
        }
        self.save(1).await;
        Ok(known)
    }

    /// The known embeddings of these texts.
    fn known(&self, texts: &BTreeSet<&str>) -> HashMap<String, Embedding> {
        let table = self.embeddings();
        let prefixes = table.model.as_ref().map(|model| &model.prefixes);
        let known = |text: &&str| {
            let embedded = prefixes.map_or_else(|| (*text).to_owned(), |prefixes| prefixes.query_text(text));
            Some(((*text).to_owned(), table.embeddings.get(&embedding_cache::hash_text(&embedded))?.clone()))
        };
        texts.iter().filter_map(known).collect()
    }

    /// Computes and remembers the embeddings of texts; also returns the number of tokens computed.
    async fn embed(
        &self,
        texts: &[&str],
        model: &Model,
        engines: &RouterEngines,
    ) -> Result<(Vec<Embedding>, u32), Failure> {
        let texts: Vec<String> = texts.iter().map(|text| model.prefixes.query_text(text)).collect();
        let embedded = embed(&engines.embedding, texts.clone()).await?;
        let tokens = embedded.total_tokens();
        let embeddings: Vec<Embedding> = embedded.vectors.into_iter().map(Into::into).collect();
        {
            let mut table = self.embeddings();
            let hashes = texts.iter().map(|text| embedding_cache::hash_text(text));
            table.embeddings.extend(hashes.zip(embeddings.iter().cloned()));
            table.unsaved += texts.len();
        }
        self.save(MIN_UNSAVED_TEXTS).await;
        Ok((embeddings, tokens))
    }

    /// Switches to the embeddings of a model: drops another model's, and all if there are too many.
    async fn use_model(&self, model: &Arc<Model>) -> Result<(), Failure> {
        {
            let table = self.embeddings();
            if table.model.as_ref() == Some(model) && table.embeddings.len() <= MAX_EMBEDDINGS {
                return Ok(());
            }
        }
        let (cache, of) = (self.cache.clone(), model.clone());
        // Reads some megabytes, and the model's whole file if its hash is not in the catalog.
        let read = tokio::task::spawn_blocking(move || {
            let fingerprint = cache.as_ref()?.fingerprint(&of)?;
            Some((fingerprint, cache?.load(&fingerprint)))
        });
        let read = read
            .await
            .map_err(|e| Failure::new(FailureCode::Internal, format!("failed to read the embedding cache: {e}")))?;
        let mut table = self.embeddings();
        let has_overflowed = table.model.as_ref() == Some(model);
        let (fingerprint, embeddings) =
            read.map_or((None, HashMap::new()), |(fingerprint, embeddings)| (Some(fingerprint), embeddings));
        let embeddings = if has_overflowed { HashMap::new() } else { embeddings };
        *table = EmbeddingTable { model: Some(model.clone()), fingerprint, embeddings, unsaved: 0 };
        Ok(())
    }

    /// Writes the embeddings to disk if at least `min_unsaved` of them are new.
    async fn save(&self, min_unsaved: usize) {
        let (cache, fingerprint) = {
            let mut table = self.embeddings();
            let (Some(cache), Some(fingerprint)) = (self.cache.clone(), table.fingerprint) else { return };
            if table.unsaved < min_unsaved {
                return;
            }
            table.unsaved = 0;
            (cache, fingerprint)
        };
        let embeddings = self.embeddings.clone();
        let store = move || {
            cache.store(&fingerprint, || {
                let table = embeddings.lock().expect(NO_PANIC);
                // Another model's may have replaced them meanwhile.
                if table.fingerprint == Some(fingerprint) { table.embeddings.clone() } else { HashMap::new() }
            });
        };
        if let Err(error) = tokio::task::spawn_blocking(store).await {
            tracing::error!(%error, "failed to save the embedding cache");
        }
    }

    fn sets(&self) -> MutexGuard<'_, Vec<Arc<CandidateSet>>> {
        self.sets.lock().expect("no code panics while it holds the lock of the sets")
    }

    fn embeddings(&self) -> MutexGuard<'_, EmbeddingTable> {
        self.embeddings.lock().expect(NO_PANIC)
    }
}

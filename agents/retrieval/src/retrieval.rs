//! The handle: what a catalog's knowledge is kept by, and searched with.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use artel_documents::ExtractorProgram;
use artel_knowledge::{
    AnswerThresholds, FusionWeight, Index, Passage, QueryEmbedding, SearchFilter, SearchQuery, SearchResult,
    SearchTimes,
};
use artel_roles::{Catalog, Knowledge, Model, SearchModeSetting};
use artel_task::event::{Citation, TaskPriority};
use artel_task::{CallerName, KnowledgeName};

use crate::answerable::thresholds;
use crate::error::Error;
use crate::found::{FoundPassages, NumberedPassage, shown_source};
use crate::model_embedder::{print_of, query_vector};
use crate::passage_reranker::PassageReranker;
use crate::running_base::RunningBase;
use crate::text_models::TextModels;
use crate::writing::WritingCheck;

/// The off-topic questions of which the scores are compared with: enough to tell one in ten.
const MAX_OFF_TOPIC_QUESTIONS: usize = 40;
/// How long thresholds hold: an index changes meanwhile, and they with it only a little.
const THRESHOLD_INTERVAL: Duration = Duration::from_secs(600);

/// The knowledge of a catalog: indexed, watched, searched. Clones share it.
#[derive(Clone)]
pub struct Retrieval {
    pub(crate) shared: Arc<SharedRetrieval>,
}

pub(crate) struct SharedRetrieval {
    pub(crate) index: Index,
    program: ExtractorProgram,
    pub(crate) models: Arc<dyn TextModels>,
    running: Mutex<BTreeMap<KnowledgeName, Arc<RunningBase>>>,
    thresholds: Mutex<HashMap<KnowledgeName, (Instant, AnswerThresholds)>>,
    /// What was last told of the writing of each knowledge.
    pub(crate) writing: Mutex<HashMap<KnowledgeName, WritingCheck>>,
    /// The vectors of off-topic questions, by the fingerprints of their models.
    off_topic: tokio::sync::Mutex<HashMap<String, Arc<Vec<Vec<f32>>>>>,
}

/// A question to one or several knowledge.
#[derive(Debug, Clone, PartialEq)]
pub struct PassageQuery {
    /// What is searched.
    pub knowledge: Vec<KnowledgeName>,
    /// The question.
    pub text: String,
    /// The caller: its own texts are found, and all files.
    pub caller: CallerName,
    /// The priority in the engines of models.
    pub priority: TaskPriority,
    /// How many passages to find; without it, as many as each knowledge says.
    pub top: Option<u32>,
}

/// A search of one knowledge, as a client asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchRequest {
    /// The knowledge.
    pub knowledge: String,
    /// The question.
    pub text: String,
    /// How many passages to find; without it, as many as the knowledge says.
    pub top: Option<u32>,
    /// By what; without it, as the knowledge says.
    pub mode: Option<SearchModeSetting>,
    /// Patterns of paths, of which one must match; empty: all sources.
    pub sources: Vec<String>,
    /// Labels that the source has.
    pub labels: BTreeMap<String, String>,
    /// The caller whose texts are found beside files; `None`: all texts.
    pub caller: Option<CallerName>,
    /// The priority in the engines of models.
    pub priority: TaskPriority,
}

/// What a client's search found.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchAnswer {
    /// The passages, the best first, each with the score of what reranks, if something does.
    pub passages: Vec<(Passage, Option<f32>)>,
    /// How long the parts took.
    pub times: SearchTimes,
    /// Waiting for the embedding model, and embedding the question.
    pub embedding_time: Duration,
    /// Reranking.
    pub rerank_time: Duration,
    /// The tokens of the question that were embedded.
    pub query_tokens: u32,
    /// Whether something is not indexed yet.
    pub is_stale: bool,
    best: (Option<f32>, Option<f32>),
}

impl Retrieval {
    /// Opens the index, creating it if it is missing. Nothing is indexed before [`apply`](Self::apply).
    ///
    /// # Errors
    /// Those of [`Index::open`].
    pub async fn open(path: &Path, program: ExtractorProgram, models: Arc<dyn TextModels>) -> Result<Self, Error> {
        let index = Index::open(path).await?;
        let (running, thresholds, off_topic) = (Mutex::default(), Mutex::default(), Default::default());
        let writing = Mutex::default();
        let shared = SharedRetrieval { index, program, models, running, thresholds, writing, off_topic };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Keeps the knowledge of this catalog from now on, and no other. What has not changed goes on.
    pub fn apply(&self, catalog: &Catalog) {
        let mut running = self.running();
        let mut kept = BTreeMap::new();
        for (name, knowledge) in catalog.knowledge() {
            let embedding = catalog.embedding_model_of(knowledge).cloned();
            let known = running.remove(name).filter(|base| base.knowledge == *knowledge && base.embedding == embedding);
            let shared = &self.shared;
            let start = || {
                let (index, models, program) = (shared.index.clone(), shared.models.clone(), shared.program.clone());
                Arc::new(RunningBase::start(knowledge.clone(), embedding.clone(), index, models, program))
            };
            kept.insert(name.clone(), known.unwrap_or_else(start));
        }
        *running = kept;
    }

    /// The passages of some knowledge that answer a question best, numbered.
    ///
    /// # Errors
    /// [`Error::NoKnowledge`] for one that the catalog does not have, [`Error::NotReady`], those of the models and of the index.
    pub async fn find(&self, catalog: &Catalog, query: PassageQuery) -> Result<FoundPassages, Error> {
        let (mut ranked, mut is_answerable, mut query_tokens, mut top) = (Vec::new(), false, 0, 0);
        for name in &query.knowledge {
            let knowledge = known(catalog, name.as_str())?;
            let request = SearchRequest {
                knowledge: name.to_string(),
                text: query.text.clone(),
                top: query.top,
                mode: None,
                sources: Vec::new(),
                labels: BTreeMap::new(),
                caller: Some(query.caller.clone()),
                priority: query.priority,
            };
            let answer = self.search(catalog, request).await?;
            let thresholds = self.thresholds(catalog, knowledge).await;
            let reaches = |best: Option<f32>, threshold: f32| best.is_some_and(|best| best >= threshold);
            is_answerable |= reaches(answer.best.0, thresholds.keyword) || reaches(answer.best.1, thresholds.vector);
            query_tokens += answer.query_tokens;
            top = top.max(query.top.unwrap_or(knowledge.search.top) as usize);
            let passages = answer.passages.into_iter().enumerate();
            ranked.extend(passages.map(|(rank, (passage, _))| (rank, name.clone(), passage)));
        }
        // The scores of different knowledge cannot be compared: the best of each come first.
        ranked.sort_by_key(|(rank, ..)| *rank);
        ranked.truncate(top);
        let numbered = (1..).zip(ranked).map(|(number, (_, name, passage))| numbered(number, &name, passage));
        Ok(FoundPassages::new(numbered.collect(), is_answerable, query_tokens))
    }

    /// Searches one knowledge.
    ///
    /// # Errors
    /// [`Error::NoKnowledge`], [`Error::NotReady`], those of the models and of the index.
    pub async fn search(&self, catalog: &Catalog, request: SearchRequest) -> Result<SearchAnswer, Error> {
        let knowledge = known(catalog, &request.knowledge)?;
        let mode = request.mode.unwrap_or(knowledge.search.mode);
        let started = Instant::now();
        let model = catalog.embedding_model_of(knowledge).filter(|_| mode != SearchModeSetting::Keyword);
        let (embedding, query_tokens) = match model {
            Some(model) => self.embed(model, &request.text, request.priority).await?,
            None => (None, 0),
        };
        let embedding_time = started.elapsed();
        let top = request.top.unwrap_or(knowledge.search.top) as usize;
        let reranker = PassageReranker::of(catalog, knowledge);
        let owners = request.caller.iter().filter(|caller| !caller.is_owner()).cloned();
        let owners: Vec<CallerName> = owners.collect();
        let mut query = SearchQuery {
            text: request.text.clone(),
            embedding,
            nearest: None,
            top: reranker.as_ref().map_or(top, |reranker| reranker.passages(top)),
            mode: index_mode(mode),
            filter: SearchFilter {
                sources: Vec::new(),
                paths: request.sources,
                labels: request.labels,
                owners: match owners.as_slice() {
                    [] => Vec::new(),
                    _ => [vec![CallerName::owner()], owners].concat(),
                },
            },
            weight: FusionWeight::default(),
        };
        let base = self.base(&knowledge.name);
        if let Some(base) = base.as_ref().filter(|base| base.indexer().is_none() && base.problem().is_none()) {
            base.opened().await;
        }
        if let Some(mirror) = base.as_ref().and_then(|base| base.mirror.as_ref()) {
            query.nearest = mirror.nearest(&query).await;
        }
        let found = self.shared.index.search(knowledge.name.as_str(), query).await;
        let found = found.map_err(|error| match error {
            artel_knowledge::Error::UnknownBase { .. } => Error::NotReady { name: knowledge.name.clone() },
            error => error.into(),
        })?;
        let SearchResult { passages, best_keyword, best_vector, times, .. } = found;
        let started = Instant::now();
        let mut passages: Vec<(Passage, Option<f32>)> = passages.into_iter().map(|passage| (passage, None)).collect();
        if let Some(reranker) = reranker {
            reranker.order(self.shared.models.as_ref(), &request.text, &mut passages, request.priority).await?;
            passages.truncate(top);
        }
        let rerank_time = started.elapsed();
        let is_stale = base.is_none_or(|base| base.is_behind());
        let best = (best_keyword, best_vector);
        Ok(SearchAnswer { passages, times, embedding_time, rerank_time, query_tokens, is_stale, best })
    }

    async fn embed(
        &self,
        model: &Arc<Model>,
        text: &str,
        priority: TaskPriority,
    ) -> Result<(Option<QueryEmbedding>, u32), Error> {
        let models = self.shared.models.as_ref();
        let print = print_of(models, model).await?;
        let embedded = query_vector(models, model, text, priority).await?;
        let values = embedded.vectors.into_iter().next();
        Ok((values.map(|values| QueryEmbedding { model: print, values }), embedded.tokens))
    }

    /// The scores that off-topic questions have in a knowledge. Whatever cannot be measured answers.
    async fn thresholds(&self, catalog: &Catalog, knowledge: &Knowledge) -> AnswerThresholds {
        let known = self.shared.thresholds.lock().unwrap_or_else(PoisonError::into_inner).get(&knowledge.name).copied();
        if let Some((_, thresholds)) = known.filter(|(since, _)| since.elapsed() < THRESHOLD_INTERVAL) {
            return thresholds;
        }
        let measured = self.measured_thresholds(catalog, knowledge).await.unwrap_or_else(|error| {
            tracing::warn!(knowledge = %knowledge.name, %error, "failed to tell answers from others: everything that is found answers");
            thresholds(Vec::new(), Vec::new())
        });
        let mut all = self.shared.thresholds.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(knowledge.name.clone(), (Instant::now(), measured));
        measured
    }

    async fn measured_thresholds(&self, catalog: &Catalog, knowledge: &Knowledge) -> Result<AnswerThresholds, Error> {
        let settings = catalog.router_settings(None);
        let questions: Vec<&String> = settings.background.iter().take(MAX_OFF_TOPIC_QUESTIONS).collect();
        let model = catalog.embedding_model_of(knowledge);
        let vectors = match model {
            Some(model) => {
                Some((print_of(self.shared.models.as_ref(), model).await?, self.off_topic(model, &questions).await?))
            }
            None => None,
        };
        let (mut keyword, mut vector) = (Vec::new(), Vec::new());
        for (at, question) in questions.iter().enumerate() {
            let embedding = vectors.as_ref().and_then(|(print, vectors)| {
                Some(QueryEmbedding { model: print.clone(), values: vectors.get(at)?.clone() })
            });
            let query = SearchQuery {
                embedding,
                top: 1,
                mode: index_mode(knowledge.search.mode),
                ..SearchQuery::new(question.as_str())
            };
            let found = self.shared.index.search(knowledge.name.as_str(), query).await?;
            keyword.extend(found.best_keyword);
            vector.extend(found.best_vector);
        }
        Ok(thresholds(keyword, vector))
    }

    async fn off_topic(&self, model: &Arc<Model>, questions: &[&String]) -> Result<Arc<Vec<Vec<f32>>>, Error> {
        let print = print_of(self.shared.models.as_ref(), model).await?;
        let mut known = self.shared.off_topic.lock().await;
        if let Some(vectors) = known.get(print.as_str()).filter(|vectors| vectors.len() == questions.len()) {
            return Ok(vectors.clone());
        }
        let texts = questions.iter().map(|question| model.prefixes.query_text(question)).collect();
        let embedded = self.shared.models.embed(model, texts, TaskPriority::Interactive).await?;
        let vectors = Arc::new(embedded.vectors);
        known.insert(print.as_str().to_owned(), vectors.clone());
        Ok(vectors)
    }

    /// The knowledge of this name, if it is kept.
    pub(crate) fn base(&self, name: &KnowledgeName) -> Option<Arc<RunningBase>> {
        self.running().get(name).cloned()
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<KnowledgeName, Arc<RunningBase>>> {
        self.shared.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the work on all knowledge, and closes the index.
    pub async fn close(&self) {
        self.running().clear();
        self.shared.index.clone().close().await;
    }
}

pub(crate) fn known<'c>(catalog: &'c Catalog, name: &str) -> Result<&'c Arc<Knowledge>, Error> {
    catalog.knowledge().get(name).ok_or_else(|| Error::NoKnowledge { name: name.to_owned() })
}

fn index_mode(mode: SearchModeSetting) -> artel_knowledge::SearchMode {
    match mode {
        SearchModeSetting::Hybrid => artel_knowledge::SearchMode::Hybrid,
        SearchModeSetting::Vector => artel_knowledge::SearchMode::Vector,
        SearchModeSetting::Keyword => artel_knowledge::SearchMode::Keyword,
    }
}

fn numbered(number: u32, knowledge: &KnowledgeName, passage: Passage) -> NumberedPassage {
    let chunk = passage.chunk;
    let citation = Citation {
        number,
        knowledge: knowledge.to_string(),
        source: shown_source(&passage.entry, &passage.owner),
        page: chunk.page,
        first_line: *chunk.lines.start(),
        last_line: *chunk.lines.end(),
        context: chunk.context,
        quote: chunk.text,
    };
    NumberedPassage { citation, score: passage.score }
}

//! The engines of models, for the index of knowledge.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use artel_engine::{
    ContextOverflow, Error as EngineError, PooledInput, PooledTexts, PoolingRequest, Priority, Request,
};
use artel_hosting::engine_call::{EngineCallError, on_engine};
use artel_hosting::{Loader, engine_host, prompt};
use artel_retrieval::{ModelError, TextModels, TextVectors, WritingCounts};
use artel_roles::template::TemplateContext;
use artel_roles::{Model, Role};
use artel_task::event::TaskPriority;
use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use ractor::{ActorRef, call};

use crate::supervisor::Message;

/// What a role that reranks may answer: yes twice, and then no.
const ANSWERS: [&str; 4] = ["yes", "Yes", "no", "No"];

/// The engines of the runtime, once it has started.
pub(super) struct EngineTextModels {
    supervisor: OnceLock<ActorRef<Message>>,
    models_dir: PathBuf,
    loader: Arc<dyn Loader>,
    /// The hashes of model files: they are read once.
    fingerprints: Mutex<Vec<(Arc<Model>, String)>>,
}

impl EngineTextModels {
    pub(super) fn new(models_dir: PathBuf, loader: Arc<dyn Loader>) -> Self {
        Self { supervisor: OnceLock::new(), models_dir, loader, fingerprints: Mutex::default() }
    }

    /// The engines are those of this supervisor from now on.
    pub(super) fn start(&self, supervisor: ActorRef<Message>) {
        // A runtime starts once.
        let _ = self.supervisor.set(supervisor);
    }

    async fn host(&self, model: &Arc<Model>) -> Result<ActorRef<engine_host::Message>, ModelError> {
        let failed =
            |reason: &str| ModelError::Unavailable { model: model.name.to_string(), reason: reason.to_owned() };
        let supervisor = self.supervisor.get().ok_or_else(|| failed("the daemon is starting"))?;
        call!(supervisor, Message::EngineHost, model.clone()).map_err(|_| failed("the daemon is ending"))
    }

    async fn pool(
        &self,
        model: &Arc<Model>,
        input: PooledInput,
        priority: TaskPriority,
    ) -> Result<PooledTexts, ModelError> {
        let host = self.host(model).await?;
        let priority = engine_priority(priority);
        let pooled = on_engine(&host, |engine| {
            let request = PoolingRequest { input: input.clone(), priority, truncates: true };
            async move { engine.pool(request).await }
        });
        pooled.await.map_err(|error| model_error(error, model))
    }
}

#[async_trait]
impl TextModels for EngineTextModels {
    async fn embed(
        &self,
        model: &Arc<Model>,
        texts: Vec<String>,
        priority: TaskPriority,
    ) -> Result<TextVectors, ModelError> {
        let pooled = self.pool(model, PooledInput::Texts(texts), priority).await?;
        let tokens = pooled.total_tokens();
        Ok(TextVectors { vectors: pooled.vectors, tokens })
    }

    async fn rerank(
        &self,
        model: &Arc<Model>,
        query: String,
        documents: Vec<String>,
        priority: TaskPriority,
    ) -> Result<Vec<f32>, ModelError> {
        let pooled = self.pool(model, PooledInput::Documents { query, documents }, priority).await?;
        Ok(pooled.vectors.iter().map(|scores| scores.first().copied().unwrap_or(f32::MIN)).collect())
    }

    async fn judge(
        &self,
        role: &Arc<Role>,
        model: &Arc<Model>,
        query: &str,
        documents: Vec<String>,
        priority: TaskPriority,
    ) -> Result<Vec<f32>, ModelError> {
        for adapter in &role.adapters {
            let fetched = self.loader.fetch_adapter(adapter).await;
            fetched.map_err(|error| unavailable(model, error.in_context(format_args!("role `{}`", role.name))))?;
        }
        let host = &self.host(model).await?;
        let context = TemplateContext { role: Some(role.template_value()), ..TemplateContext::default() };
        let system = role.prompt.render(&context).map_err(|error| unusable(model, error))?;
        let request = |document: &str| {
            let messages = prompt::messages(&system, &relevance_question(query, document));
            let request = prompt::request(role, &self.models_dir, engine_priority(priority), messages);
            let request = request.map_err(|failure| unavailable(model, failure.message))?;
            // A passage that does not fit is judged by what does.
            Ok::<_, ModelError>(Request { overflow: ContextOverflow::Truncate, ..request })
        };
        let judged = documents.iter().map(|document| async {
            let request = request(document)?;
            let scores = on_engine(host, |engine| {
                let request = request.clone();
                async move { engine.score_labels(request, ANSWERS.map(str::to_owned).to_vec()).await }
            });
            let scores = scores.await.map_err(|error| model_error(error, model))?.scores;
            Ok(log_odds(&scores))
        });
        let judged: Vec<_> = judged.collect();
        futures::stream::iter(judged).buffered(role.limits.concurrency as usize).try_collect().await
    }

    async fn vocabulary(&self, model: &Arc<Model>) -> WritingCounts {
        let candidates = model.candidates(&self.models_dir);
        let read = tokio::task::spawn_blocking(move || {
            let mut counts = WritingCounts::default();
            let path = candidates.into_iter().find(|path| path.exists());
            let read = path.map(|path| artel_gguf::for_each_token(&path, |token| counts.add_token(token)));
            // A file that is damaged cannot be loaded either, which says more.
            if matches!(read, Some(Ok(()))) { counts } else { WritingCounts::default() }
        });
        read.await.unwrap_or_default()
    }

    async fn fingerprint(&self, model: &Arc<Model>) -> Result<String, ModelError> {
        let known = || self.fingerprints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, print)) = known().iter().find(|(of, _)| of == model) {
            return Ok(print.clone());
        }
        let (of, dir) = (model.clone(), self.models_dir.clone());
        let read = tokio::task::spawn_blocking(move || artel_routing::model_fingerprint(&of, &dir)).await;
        let unreadable =
            || ModelError::Unavailable { model: model.name.to_string(), reason: "its file cannot be read".to_owned() };
        let print = read.ok().flatten().ok_or_else(unreadable)?;
        let print: String = print.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut known = known();
        // Models of catalogs that are gone need none.
        known.retain(|(of, _)| Arc::strong_count(of) > 1);
        known.push((model.clone(), print.clone()));
        Ok(print)
    }
}

fn engine_priority(priority: TaskPriority) -> Priority {
    match priority {
        TaskPriority::Interactive => Priority::Interactive,
        TaskPriority::Batch => Priority::Batch,
    }
}

/// What a role that reranks is asked of each passage: what is the same for all passages comes first, for engines to share.
fn relevance_question(query: &str, document: &str) -> String {
    format!(
        "Question: {query}\n\nPassage:\n{document}\n\nDoes the passage answer the question? Answer with yes or no and nothing else."
    )
}

/// The logarithm of how much more probable the first half of the answers is than the second one.
fn log_odds(scores: &[f64]) -> f32 {
    let (yes, no) = scores.split_at(scores.len() / 2);
    let sum = |scores: &[f64]| scores.iter().map(|score| score.exp()).sum::<f64>().max(f64::MIN_POSITIVE).ln();
    (sum(yes) - sum(no)) as f32
}

fn model_error(error: EngineCallError, model: &Model) -> ModelError {
    match error {
        EngineCallError::Unavailable(refusal) if refusal.is_transient() || refusal.is_memory_shortage() => {
            unavailable(model, refusal)
        }
        EngineCallError::Unavailable(refusal) => unusable(model, refusal),
        EngineCallError::Host(failure) => unavailable(model, failure.message),
        EngineCallError::Engine(error @ EngineError::InvalidRequest(_)) => unusable(model, error),
        EngineCallError::Engine(error) => unavailable(model, error),
    }
}

fn unavailable(model: &Model, reason: impl Display) -> ModelError {
    ModelError::Unavailable { model: model.name.to_string(), reason: reason.to_string() }
}

fn unusable(model: &Model, reason: impl Display) -> ModelError {
    ModelError::Unusable { model: model.name.to_string(), reason: reason.to_string() }
}

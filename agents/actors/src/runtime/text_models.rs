//! The engines of models, for the index of knowledge.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use artel_engine::{Error as EngineError, PooledInput, PooledTexts, PoolingRequest, Priority};
use artel_hosting::engine_call::{EngineCallError, on_engine};
use artel_retrieval::{ModelError, TextModels, TextVectors};
use artel_roles::Model;
use artel_task::event::TaskPriority;
use async_trait::async_trait;
use ractor::{ActorRef, call};

use crate::supervisor::Message;

/// The engines of the runtime, once it has started.
pub(super) struct EngineTextModels {
    supervisor: OnceLock<ActorRef<Message>>,
    models_dir: PathBuf,
    /// The hashes of model files: they are read once.
    fingerprints: Mutex<Vec<(Arc<Model>, String)>>,
}

impl EngineTextModels {
    pub(super) fn new(models_dir: PathBuf) -> Self {
        Self { supervisor: OnceLock::new(), models_dir, fingerprints: Mutex::default() }
    }

    /// The engines are those of this supervisor from now on.
    pub(super) fn start(&self, supervisor: ActorRef<Message>) {
        // A runtime starts once.
        let _ = self.supervisor.set(supervisor);
    }

    async fn pool(
        &self,
        model: &Arc<Model>,
        input: PooledInput,
        priority: TaskPriority,
    ) -> Result<PooledTexts, ModelError> {
        let failed = |reason: String| ModelError::Unavailable { model: model.name.to_string(), reason };
        let supervisor = self.supervisor.get().ok_or_else(|| failed("the daemon is starting".to_owned()))?;
        let host = call!(supervisor, Message::EngineHost, model.clone());
        let host = host.map_err(|_| failed("the daemon is ending".to_owned()))?;
        let priority = match priority {
            TaskPriority::Interactive => Priority::Interactive,
            TaskPriority::Batch => Priority::Batch,
        };
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

fn model_error(error: EngineCallError, model: &Model) -> ModelError {
    let model = model.name.to_string();
    match error {
        EngineCallError::Unavailable(refusal) if refusal.is_transient() || refusal.is_memory_shortage() => {
            ModelError::Unavailable { model, reason: refusal.to_string() }
        }
        EngineCallError::Unavailable(refusal) => ModelError::Unusable { model, reason: refusal.to_string() },
        EngineCallError::Host(failure) => ModelError::Unavailable { model, reason: failure.message },
        EngineCallError::Engine(error @ EngineError::InvalidRequest(_)) => {
            ModelError::Unusable { model, reason: error.to_string() }
        }
        EngineCallError::Engine(error) => ModelError::Unavailable { model, reason: error.to_string() },
    }
}

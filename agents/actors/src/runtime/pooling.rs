//! Texts that clients have computed as a whole: embedded, or ranked by their relevance to a query. Nothing of them is journalled.

use std::sync::Arc;

use artel_engine::{Error as EngineError, PooledInput, PooledTexts, PoolingRequest, Priority};
use artel_retrieval::{SearchAnswer, SearchRequest};
use artel_roles::{Catalog, Model, ModelPurpose};
use artel_task::event::{Failure, FailureCode, TaskPriority};
use artel_task::{CallerName, TraceContext};
use artel_traces::{RequestSpan, SpanAttributes};

use super::{Error, Runtime, Viewer};
use artel_admission::CallerQuota;
use artel_hosting::engine_call::{EngineCallError, on_engine};

/// Texts to be computed by a model as a whole, for a caller.
#[derive(Debug, Clone, PartialEq)]
pub struct TextsRequest {
    /// The model of the catalog.
    pub model: String,
    /// The texts, or a query with documents.
    pub input: PooledInput,
    /// What texts to embed are, which says what the model sees before them; as they are without it.
    pub embedded_as: Option<EmbeddedAs>,
    /// Whether a text that exceeds the model's context is cut.
    pub truncates: bool,
    /// The priority in the engine.
    pub priority: TaskPriority,
    /// Whose call it is.
    pub caller: CallerName,
    /// What the caller may use.
    pub quota: CallerQuota,
    /// The span of the call, if it is traced.
    pub trace: Option<TraceContext>,
}

/// What a text to embed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbeddedAs {
    /// It asks.
    Query,
    /// It is searched.
    Passage,
}

impl EmbeddedAs {
    /// The text as the model sees it.
    fn apply(self, model: &Model, text: &str) -> String {
        match self {
            Self::Query => model.prefixes.query_text(text),
            Self::Passage => model.prefixes.passage_text(text),
        }
    }
}

impl TextsRequest {
    /// The input as the model sees it.
    fn input_of(&self, model: &Model) -> PooledInput {
        match (&self.input, self.embedded_as) {
            (PooledInput::Texts(texts), Some(kind)) => {
                PooledInput::Texts(texts.iter().map(|text| kind.apply(model, text)).collect())
            }
            (input, _) => input.clone(),
        }
    }

    /// What the model must be for.
    fn purpose(&self) -> ModelPurpose {
        match self.input {
            PooledInput::Texts(_) => ModelPurpose::Embedding,
            PooledInput::Documents { .. } => ModelPurpose::Rerank,
        }
    }
}

impl Runtime {
    /// Has a model compute texts as a whole. Its tokens count against those of the caller's day, until the daemon ends: there is no
    /// task that the journal would keep. Dropping the future cancels what is not computed yet.
    ///
    /// # Errors
    /// [`Error::NoModel`], [`Error::WrongPurpose`], [`Error::Quota`], [`Error::TextTooLong`], [`Error::EngineBusy`],
    /// [`Error::InsufficientMemory`], [`Error::UnusableModel`], [`Error::Failed`], [`Error::ShuttingDown`].
    pub async fn pool(&self, request: TextsRequest) -> Result<PooledTexts, Error> {
        self.check_open()?;
        let name = &request.model;
        let model = self.catalog().model(name).cloned().ok_or_else(|| Error::NoModel { name: name.clone() })?;
        let needed = request.purpose();
        if model.purpose != needed {
            return Err(Error::WrongPurpose { name: name.clone(), found: model.purpose, needed });
        }
        self.shared.callers.check_tokens(&request.caller, request.quota, self.shared.clock.now())?;
        let span = self.pooling_span(&request, needed);
        let pooled = self.pool_on(&model, &request).await;
        match (span, &pooled) {
            (Some(span), Ok(pooled)) => {
                span.finish(SpanAttributes::default().integer("gen_ai.usage.input_tokens", pooled.total_tokens()));
            }
            (Some(span), Err(error)) => span.fail(failure_code(error)),
            (None, _) => {}
        }
        if let Ok(pooled) = &pooled {
            let tokens = u64::from(pooled.total_tokens());
            self.shared.callers.used(&request.caller, tokens, self.shared.clock.now());
            self.shared.metrics.callers.used_prompt(request.caller.as_str(), tokens);
        }
        pooled
    }

    async fn pool_on(&self, model: &Arc<Model>, request: &TextsRequest) -> Result<PooledTexts, Error> {
        let host = self.engine_host(model).await?;
        let priority = match request.priority {
            TaskPriority::Interactive => Priority::Interactive,
            TaskPriority::Batch => Priority::Batch,
        };
        let input = request.input_of(model);
        let pooling = || PoolingRequest { input: input.clone(), priority, truncates: request.truncates };
        let pooled = on_engine(&host, |engine| {
            let pooling = pooling();
            async move { engine.pool(pooling).await }
        });
        pooled.await.map_err(|error| error_of(error, &request.model))
    }

    fn pooling_span(&self, request: &TextsRequest, purpose: ModelPurpose) -> Option<RequestSpan> {
        let operation = if purpose == ModelPurpose::Rerank { "rerank" } else { "embeddings" };
        let scope = self.shared.tracer.as_ref()?.scope(request.trace.clone()?);
        Some(RequestSpan::begin(&scope, operation, &request.model))
    }
}

/// Why a knowledge was not searched.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SearchError {
    /// The runtime refuses.
    #[error(transparent)]
    Runtime(#[from] Error),
    /// The index does, or a model.
    #[error(transparent)]
    Knowledge(#[from] artel_retrieval::Error),
}

impl Runtime {
    /// Searches a knowledge for a caller. The tokens of the question count as those of [`pool`](Self::pool) do.
    ///
    /// # Errors
    /// [`Error::Quota`], [`Error::ShuttingDown`]; those of [`Retrieval::search`](artel_retrieval::Retrieval::search).
    pub async fn search_knowledge(
        &self,
        catalog: &Catalog,
        request: SearchRequest,
        viewer: &Viewer,
    ) -> Result<SearchAnswer, SearchError> {
        self.check_open()?;
        self.shared.callers.check_tokens(&viewer.caller, viewer.quota, self.shared.clock.now()).map_err(Error::from)?;
        let name = || artel_retrieval::Error::NoKnowledge { name: request.knowledge.clone() };
        let retrieval = self.retrieval().ok_or_else(name)?;
        let answer = retrieval.search(catalog, request).await?;
        let tokens = u64::from(answer.query_tokens);
        self.shared.callers.used(&viewer.caller, tokens, self.shared.clock.now());
        self.shared.metrics.callers.used_prompt(viewer.caller.as_str(), tokens);
        Ok(answer)
    }
}

pub(super) fn error_of(error: EngineCallError, model: &str) -> Error {
    let failed = |code, message| Error::Failed(Failure::new(code, message));
    match error {
        EngineCallError::Unavailable(refusal) if refusal.is_memory_shortage() => {
            Error::InsufficientMemory(refusal.to_string())
        }
        EngineCallError::Unavailable(refusal) if refusal.is_transient() => {
            failed(FailureCode::ModelUnavailable, refusal.to_string())
        }
        EngineCallError::Unavailable(refusal) => Error::UnusableModel(refusal.to_string()),
        EngineCallError::Host(failure) => Error::Failed(failure),
        EngineCallError::Engine(EngineError::TextTooLong { index, tokens, limit }) => {
            Error::TextTooLong { index, tokens, limit }
        }
        EngineCallError::Engine(EngineError::QueueFull(limit)) => Error::EngineBusy { name: model.to_owned(), limit },
        EngineCallError::Engine(EngineError::InvalidRequest(reason)) => Error::UnusableModel(reason),
        EngineCallError::Engine(error) => failed(FailureCode::ModelUnavailable, format!("model `{model}`: {error}")),
    }
}

/// The code that a span tells.
fn failure_code(error: &Error) -> FailureCode {
    match error {
        Error::Failed(failure) => failure.code,
        Error::TextTooLong { .. } => FailureCode::ContextOverflow,
        Error::EngineBusy { .. } => FailureCode::QueueFull,
        Error::InsufficientMemory(_) | Error::UnusableModel(_) => FailureCode::ModelUnavailable,
        _ => FailureCode::Internal,
    }
}

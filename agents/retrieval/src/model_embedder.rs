//! An embedding model of the catalog, as the index sees it.

use std::sync::Arc;

use artel_knowledge::{EmbedError, EmbedPurpose, Embedder, ModelPrint};
use artel_roles::Model;
use artel_task::event::TaskPriority;
use async_trait::async_trait;

use crate::error::ModelError;
use crate::text_models::{TextModels, TextVectors};

/// A text that is embedded to learn how long the vectors are.
const PROBE_TEXT: &str = "probe";
/// What a model reads of a text if its context is not stated: that of BERT and of its kin.
const DEFAULT_CONTEXT_TOKENS: usize = 512;

/// An embedding model of the catalog.
pub(crate) struct ModelEmbedder {
    models: Arc<dyn TextModels>,
    model: Arc<Model>,
    print: ModelPrint,
    dimensions: usize,
}

impl ModelEmbedder {
    /// Loads the model to learn how long its vectors are.
    pub(crate) async fn of(models: Arc<dyn TextModels>, model: Arc<Model>) -> Result<Self, ModelError> {
        let print = print_of(models.as_ref(), &model).await?;
        let texts = vec![model.prefixes.passage_text(PROBE_TEXT)];
        let probe = models.embed(&model, texts, TaskPriority::Batch).await?;
        let dimensions = probe.vectors.first().map_or(0, Vec::len);
        Ok(Self { models, model, print, dimensions })
    }
}

/// What tells the vectors of a model from those of others: its content and what it sees before texts.
pub(crate) async fn print_of(models: &dyn TextModels, model: &Arc<Model>) -> Result<ModelPrint, ModelError> {
    let content = models.fingerprint(model).await?;
    let prefixes = &model.prefixes;
    Ok(ModelPrint::new(format!("{content} {:?} {:?}", prefixes.query, prefixes.passage)))
}

/// The vector of a question.
pub(crate) async fn query_vector(
    models: &dyn TextModels,
    model: &Arc<Model>,
    query: &str,
    priority: TaskPriority,
) -> Result<TextVectors, ModelError> {
    models.embed(model, vec![model.prefixes.query_text(query)], priority).await
}

#[async_trait]
impl Embedder for ModelEmbedder {
    fn model(&self) -> ModelPrint {
        self.print.clone()
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn max_tokens(&self) -> usize {
        self.model.context.map_or(DEFAULT_CONTEXT_TOKENS, |tokens| tokens as usize)
    }

    async fn embed(&self, texts: Vec<String>, purpose: EmbedPurpose) -> Result<Vec<Vec<f32>>, EmbedError> {
        let prefixes = &self.model.prefixes;
        let seen = |text: String| match purpose {
            EmbedPurpose::Query => prefixes.query_text(&text),
            EmbedPurpose::Passage => prefixes.passage_text(&text),
        };
        let texts = texts.into_iter().map(seen).collect();
        // People's work goes first.
        let embedded = self.models.embed(&self.model, texts, TaskPriority::Batch).await;
        embedded.map(|embedded| embedded.vectors).map_err(|error| match error {
            ModelError::Unavailable { .. } => EmbedError::Unavailable { reason: error.to_string() },
            // The text may be fine: another file, or another model, mends it.
            ModelError::Unusable { .. } => EmbedError::Unavailable { reason: error.to_string() },
        })
    }
}

//! What is needed of engines: vectors of texts, and scores of documents.

use std::sync::Arc;

use artel_roles::{Model, Role};
use artel_task::event::TaskPriority;
use async_trait::async_trait;

use crate::error::ModelError;
use crate::writing::WritingCounts;

/// Texts as vectors, and the tokens that were computed for them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TextVectors {
    /// In the order of the texts.
    pub vectors: Vec<Vec<f32>>,
    /// Of all texts.
    pub tokens: u32,
}

/// The engines of models that compute texts as a whole. Dropping a future cancels what is not computed yet.
#[async_trait]
pub trait TextModels: Send + Sync + 'static {
    /// The vectors of texts, prefixes included; texts that are too long are cut.
    async fn embed(
        &self,
        model: &Arc<Model>,
        texts: Vec<String>,
        priority: TaskPriority,
    ) -> Result<TextVectors, ModelError>;

    /// How relevant each document is to a query; higher is better.
    async fn rerank(
        &self,
        model: &Arc<Model>,
        query: String,
        documents: Vec<String>,
        priority: TaskPriority,
    ) -> Result<Vec<f32>, ModelError>;

    /// How relevant each document is to a query by a role on its model: by how much more probable it is that the role says yes than
    /// no.
    async fn judge(
        &self,
        role: &Arc<Role>,
        model: &Arc<Model>,
        query: &str,
        documents: Vec<String>,
        priority: TaskPriority,
    ) -> Result<Vec<f32>, ModelError>;

    /// What the vocabulary of the model has of each writing system; nothing if its file cannot be read.
    async fn vocabulary(&self, model: &Arc<Model>) -> WritingCounts;

    /// What tells the model's vectors from those of others: it reads its file unless the catalog has its hash.
    async fn fingerprint(&self, model: &Arc<Model>) -> Result<String, ModelError>;
}

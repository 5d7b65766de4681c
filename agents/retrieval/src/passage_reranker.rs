//! Passages ordered by what reads each of them with the question.

use std::sync::Arc;

use artel_knowledge::Passage;
use artel_roles::{Catalog, Knowledge, Model, Reranker, Role};
use artel_task::event::TaskPriority;

use crate::error::ModelError;
use crate::text_models::TextModels;

/// The passages that a model reads at least: it finds what a search ranks a little too low.
const MODEL_PASSAGES: usize = 50;
/// The passages that a role reads at least: each is a prompt for a model that is larger than one for reranking.
const ROLE_PASSAGES: usize = 20;

/// What orders the passages of a knowledge.
pub(crate) enum PassageReranker {
    /// A model with `use: rerank`.
    Model(Arc<Model>),
    /// A role on its model.
    Role(Arc<Role>, Arc<Model>),
}

impl PassageReranker {
    /// That of a knowledge, if it names one.
    pub(crate) fn of(catalog: &Catalog, knowledge: &Knowledge) -> Option<Self> {
        match knowledge.search.rerank.as_ref()? {
            Reranker::Model(name) => catalog.model(name.as_str()).cloned().map(Self::Model),
            Reranker::Role(name) => {
                let role = catalog.role(name.as_str())?;
                Some(Self::Role(role.clone(), catalog.model_of(role)?))
            }
        }
    }

    /// How many passages it reads to give so many.
    pub(crate) fn passages(&self, top: usize) -> usize {
        match self {
            Self::Model(_) => top.max(MODEL_PASSAGES),
            Self::Role(..) => top.max(ROLE_PASSAGES),
        }
    }

    /// Orders passages, and gives each its score.
    pub(crate) async fn order(
        &self,
        models: &dyn TextModels,
        query: &str,
        passages: &mut [(Passage, Option<f32>)],
        priority: TaskPriority,
    ) -> Result<(), ModelError> {
        if passages.is_empty() {
            return Ok(());
        }
        let documents = passages.iter().map(|(passage, _)| passage.chunk.indexed_text()).collect();
        let scores = match self {
            Self::Model(model) => models.rerank(model, query.to_owned(), documents, priority).await?,
            Self::Role(role, model) => models.judge(role, model, query, documents, priority).await?,
        };
        for ((_, score), found) in passages.iter_mut().zip(scores) {
            *score = Some(found);
        }
        passages.sort_by(|(_, one), (_, other)| other.unwrap_or(f32::MIN).total_cmp(&one.unwrap_or(f32::MIN)));
        Ok(())
    }
}

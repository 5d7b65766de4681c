//! Why nothing can be searched.

use artel_task::KnowledgeName;
use artel_task::event::FailureCode;

/// Why a knowledge cannot be searched, or takes no text.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such knowledge.
    #[error("there is no knowledge `{name}`")]
    NoKnowledge {
        /// The name that was asked for.
        name: String,
    },
    /// Its index is not there yet.
    #[error("knowledge `{name}` is not indexed yet: `artel knowledge status` shows how far it is")]
    NotReady {
        /// The knowledge.
        name: KnowledgeName,
    },
    /// No such file or text, or one of another caller.
    #[error("knowledge `{name}` has no source `{source_name}`")]
    NoSource {
        /// The knowledge.
        name: KnowledgeName,
        /// The source that was asked for.
        source_name: String,
    },
    /// The index refuses, or cannot be read.
    #[error(transparent)]
    Index(#[from] artel_knowledge::Error),
    /// A model that is needed cannot compute.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A text cannot be read.
    #[error("the text cannot be indexed: {reason}")]
    Unreadable {
        /// Why.
        reason: String,
    },
}

/// Why a model gave no vectors and no scores.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ModelError {
    /// It may later.
    #[error("model `{model}` cannot be used at the moment: {reason}")]
    Unavailable {
        /// The model.
        model: String,
        /// Why.
        reason: String,
    },
    /// It never will, as it is.
    #[error("model `{model}` cannot be used: {reason}")]
    Unusable {
        /// The model.
        model: String,
        /// Why.
        reason: String,
    },
}

impl ModelError {
    /// Whether it may go by itself.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

impl Error {
    /// The code of a step that fails with it: whether it is worth another attempt.
    pub fn failure_code(&self) -> FailureCode {
        match self {
            Self::NotReady { .. } | Self::Index(_) | Self::Model(ModelError::Unavailable { .. }) => {
                FailureCode::ModelUnavailable
            }
            Self::NoKnowledge { .. } | Self::NoSource { .. } | Self::Unreadable { .. } | Self::Model(_) => {
                FailureCode::Template
            }
        }
    }
}

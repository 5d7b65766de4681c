//! What a model is for.

use serde::{Deserialize, Serialize};

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelPurpose {
    /// It generates answers.
    #[default]
    Chat,
    /// It computes embeddings, which routers and clients compare.
    Embedding,
    /// It scores how relevant a document is to a query: a cross-encoder, which reads both together.
    Rerank,
}

impl ModelPurpose {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Chat, Self::Embedding, Self::Rerank];

    /// Its name in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embedding => "embedding",
            Self::Rerank => "rerank",
        }
    }

    /// Whether it computes one result for a whole text, in one batch, in place of a token after another.
    pub fn pools(self) -> bool {
        self != Self::Chat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_chat_models_pool() {
        let pooling: Vec<&str> =
            ModelPurpose::ALL.iter().filter(|use_| use_.pools()).map(|use_| use_.as_str()).collect();
        assert_eq!(pooling, ["embedding", "rerank"]);
    }
}

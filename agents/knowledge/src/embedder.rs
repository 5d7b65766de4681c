//! What the index needs of an embedding model.

use std::fmt;

use async_trait::async_trait;

/// How vectors are stored. With another number, those of before are another model's: texts are embedded anew while the old index
/// answers by words. Version 1 had halves (f16).
const VECTOR_FORMAT_VERSION: u32 = 2;

/// What tells the vectors of one model from those of another: its file, its prefixes, its pooling.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelPrint(String);

impl ModelPrint {
    /// From any text that differs where vectors would.
    pub fn new(text: impl Into<String>) -> Self {
        Self(format!("{VECTOR_FORMAT_VERSION} {}", text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelPrint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a text is embedded for; models have a prefix for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbedPurpose {
    /// A question.
    Query,
    /// A text in which answers are looked for.
    Passage,
}

/// Why texts were not embedded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EmbedError {
    /// The model cannot take these texts; another attempt would end the same.
    #[error("the embedding model refuses the text: {reason}")]
    Refused {
        /// What it says.
        reason: String,
    },
    /// The model cannot be reached now.
    #[error("the embedding model is not available: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// An embedding model. Dropping the future of [`embed`](Self::embed) cancels it.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// What tells its vectors from those of others.
    fn model(&self) -> ModelPrint;

    /// The dimensions of its vectors.
    fn dimensions(&self) -> usize;

    /// The longest text that it takes, in its tokens.
    fn max_tokens(&self) -> usize;

    /// A vector for each text, in order.
    async fn embed(&self, texts: Vec<String>, purpose: EmbedPurpose) -> Result<Vec<Vec<f32>>, EmbedError>;
}

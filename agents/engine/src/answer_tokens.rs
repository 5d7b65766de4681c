//! Answers as a model learns them.

use crate::backend::Token;

/// A prompt and an answer to it as tokens, as a model learns them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerTokens {
    /// What the model reads, with what its template begins an answer with.
    pub prompt: Vec<Token>,
    /// The answer, with the token that ends it last.
    pub answer: Vec<Token>,
}

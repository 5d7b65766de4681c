//! A sample.

/// A prompt and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSample {
    /// What the model reads, the beginning of its answer's turn included.
    pub prompt: Vec<i32>,
    /// What it should answer, the end of the turn included.
    pub answer: Vec<i32>,
}

//! What runs need of the daemon: the tokens of samples, and losses under llama.cpp.

use std::path::PathBuf;
use std::sync::Arc;

use artel_roles::Role;
use artel_training::SampleMessage;
use async_trait::async_trait;

/// A prompt and an answer as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleTokens {
    /// What the model reads.
    pub prompt: Vec<u32>,
    /// The answer, with the token that ends it last.
    pub answer: Vec<u32>,
}

/// A loss to measure: the mean negative log-likelihood of the answers in a file of samples, by llama.cpp.
#[derive(Debug, Clone, PartialEq)]
pub struct LossRequest {
    /// The GGUF.
    pub model: PathBuf,
    /// An adapter for it.
    pub adapter: Option<PathBuf>,
    /// Where the weights are written in 16 bits first, to be measured instead. The file is removed afterwards.
    pub in_16_bits: Option<PathBuf>,
    /// The samples, in the form of the trainer.
    pub samples: PathBuf,
}

/// A measured loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeasuredLoss {
    /// In nats per token of the answers.
    pub nats: f64,
    /// Tokens of the answers.
    pub tokens: u64,
}

/// Why the daemon did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// This sample cannot be learned from; others may.
    #[error("{0}")]
    Sample(String),
    /// It will not do this, however often it is asked.
    #[error("{0}")]
    Refused(String),
    /// It can do nothing of this kind now.
    #[error("{0}")]
    Unavailable(String),
}

/// The daemon, as runs see it.
#[async_trait]
pub trait TrainingHost: Send + Sync + 'static {
    /// The tokens of a prompt and an answer, as the model of this role reads and gives them when it serves.
    ///
    /// # Errors
    /// [`HostError`].
    async fn tokenize(
        &self,
        role: &Arc<Role>,
        messages: &[SampleMessage],
        answer: &str,
    ) -> Result<SampleTokens, HostError>;

    /// Measures a loss in a process beside the daemon, which ends when the future is dropped.
    ///
    /// # Errors
    /// [`HostError::Refused`], [`HostError::Unavailable`].
    async fn measure(&self, request: LossRequest) -> Result<MeasuredLoss, HostError>;
}

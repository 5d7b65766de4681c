//! The interface of an engine, in this process or in another.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::answer_tokens::AnswerTokens;
use crate::backend::EngineLimits;
use crate::counters::EngineStats;
use crate::heartbeat::Heartbeat;
use crate::pooling::{PooledTexts, PoolingRequest};
use crate::request::{Error, LabelScores, Request, SamplingOptions, ScaledAdapters};
use crate::stream::{OutputStream, PrefixPin};

/// An engine: on a thread of this process, or in a process of its own.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// The limits of the loaded model.
    fn limits(&self) -> EngineLimits;
    /// What the model's file states of its sampling.
    fn sampling_defaults(&self) -> SamplingOptions {
        SamplingOptions::default()
    }
    /// The latest statistics that are known without a call to the engine.
    fn stats(&self) -> EngineStats;
    /// The current statistics; an engine in another process is called for them.
    async fn fetch_stats(&self) -> EngineStats {
        self.stats()
    }
    /// What its computing thread does; `None` if that is not known here, as for an engine in another process.
    fn heartbeat(&self) -> Option<Heartbeat> {
        None
    }
    /// The id of its process, if it has one of its own.
    fn process_id(&self) -> Option<u32> {
        None
    }
    /// Why the engine ended, once it has. Holding the receiver does not keep the engine alive.
    fn end_reason(&self) -> watch::Receiver<Option<String>>;
    /// Whether it was ended because it hung; an engine in this process cannot be.
    fn has_hung(&self) -> bool {
        false
    }
    /// See [`EngineHandle::generate`](crate::EngineHandle::generate).
    async fn generate(&self, request: Request) -> Result<OutputStream, Error>;
    /// See [`EngineHandle::score_labels`](crate::EngineHandle::score_labels).
    async fn score_labels(&self, request: Request, labels: Vec<String>) -> Result<LabelScores, Error>;
    /// See [`EngineHandle::tokenize_answer`](crate::EngineHandle::tokenize_answer).
    async fn tokenize_answer(&self, request: Request, answer: String) -> Result<AnswerTokens, Error>;
    /// See [`EngineHandle::prefill`](crate::EngineHandle::prefill).
    async fn prefill(&self, request: Request) -> Result<(), Error>;
    /// See [`EngineHandle::pool`](crate::EngineHandle::pool).
    async fn pool(&self, request: PoolingRequest) -> Result<PooledTexts, Error>;
    /// See [`EngineHandle::pin_prefixes`](crate::EngineHandle::pin_prefixes).
    fn pin_prefixes(&self, flows: Vec<Arc<str>>) -> PrefixPin;
    /// See [`EngineHandle::retain_adapters`](crate::EngineHandle::retain_adapters).
    fn retain_adapters(&self, sets: Vec<ScaledAdapters>);
    /// See [`EngineHandle::forget_text`](crate::EngineHandle::forget_text).
    async fn forget_text(&self) -> Result<(), Error>;
    /// Asks the engine to end.
    fn close(&self);
}

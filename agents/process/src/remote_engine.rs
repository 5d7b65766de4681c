//! The daemon's handle of an engine in another process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use artel_engine::backend::EngineLimits;
use artel_engine::{
    AnswerTokens, Chunk, Engine, EngineStats, Error, LabelScores, OutputStream, PooledTexts, PoolingRequest, PrefixPin,
    Request, SamplingOptions, ScaledAdapters,
};
use async_trait::async_trait;
use tokio::sync::{SetOnce, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::supervision::{STDERR_TIMEOUT, call_failure};
use crate::wire::v1::engine_client::EngineClient;
use crate::wire::{self, v1};

/// The time for an engine to return its statistics; after it, the previous ones are used.
const STATS_TIMEOUT: Duration = Duration::from_secs(2);

/// The engine of a process. The process ends when the last clone, and the last stream, is dropped.
#[derive(Clone)]
pub(crate) struct RemoteEngine(pub(crate) Arc<RemoteConnection>);

pub(crate) struct RemoteConnection {
    pub(crate) client: EngineClient<Channel>,
    pub(crate) limits: EngineLimits,
    pub(crate) sampling_defaults: SamplingOptions,
    pub(crate) process_id: u32,
    /// The last statistics of the engine.
    pub(crate) stats: Mutex<EngineStats>,
    /// Calls without an answer yet.
    pub(crate) pending_calls: Arc<AtomicU64>,
    pub(crate) ended: watch::Receiver<Option<String>>,
    /// Set when it hangs, with the reason.
    pub(crate) hung: Arc<SetOnce<String>>,
    /// Cancelled when the process is closed, so that its exit is not reported as a failure.
    pub(crate) closing: CancellationToken,
    pub(crate) _cpu_lease: Option<AbortOnDropHandle<()>>,
    pub(crate) _hang_watch: AbortOnDropHandle<()>,
    pub(crate) _log_levels: Option<AbortOnDropHandle<()>>,
}

impl Drop for RemoteConnection {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// A call without an answer yet.
struct PendingCall {
    connection: Arc<RemoteConnection>,
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        self.connection.pending_calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PendingCall {
    /// The answer of a call, or the end of the engine. A process that the kernel does not end keeps its socket open, so that the
    /// call alone would never return.
    async fn answer<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
        let mut ended = self.connection.ended.clone();
        let answer = tokio::select! {
            biased;
            answer = call => answer,
            _ = ended.wait_for(Option::is_some) => Err(Status::unavailable("its process has ended")),
        };
        match answer {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(self.failure(&status).await),
        }
    }

    async fn failure(&self, status: &Status) -> Error {
        Error::Ended(call_failure(&mut self.connection.ended.clone(), status).await)
    }

    /// Resolves when the engine has ended and what it sent before must have arrived.
    async fn drained(&self) {
        // An error means that the process is not supervised any more, as after its end.
        let _ = self.connection.ended.clone().wait_for(Option::is_some).await;
        tokio::time::sleep(STDERR_TIMEOUT).await;
    }
}

impl RemoteEngine {
    fn start_call(&self) -> (PendingCall, EngineClient<Channel>) {
        self.0.pending_calls.fetch_add(1, Ordering::Relaxed);
        (PendingCall { connection: self.0.clone() }, self.0.client.clone())
    }
}

#[async_trait]
impl Engine for RemoteEngine {
    fn limits(&self) -> EngineLimits {
        self.0.limits
    }

    fn sampling_defaults(&self) -> SamplingOptions {
        self.0.sampling_defaults.clone()
    }

    /// The last statistics of the engine; calls since then are counted as queued.
    fn stats(&self) -> EngineStats {
        let stats = self.0.stats.lock().map(|stats| *stats).unwrap_or_default();
        let calls = self.0.pending_calls.load(Ordering::Relaxed);
        let running = stats.running.min(calls);
        EngineStats { running, waiting: calls - running, ..stats }
    }

    async fn fetch_stats(&self) -> EngineStats {
        let mut client = self.0.client.clone();
        let response = tokio::time::timeout(STATS_TIMEOUT, client.get_stats(v1::GetStatsRequest {})).await;
        if let (Ok(Ok(response)), Ok(mut stats)) = (response, self.0.stats.lock()) {
            *stats = wire::stats_of(response.into_inner());
        }
        self.stats()
    }

    fn process_id(&self) -> Option<u32> {
        Some(self.0.process_id)
    }

    fn end_reason(&self) -> watch::Receiver<Option<String>> {
        self.0.ended.clone()
    }

    fn has_hung(&self) -> bool {
        self.0.hung.get().is_some()
    }

    async fn generate(&self, request: Request) -> Result<OutputStream, Error> {
        let (pending, mut client) = self.start_call();
        let chunks = pending.answer(client.generate(wire::request(request))).await?;
        Ok(OutputStream::remote(receive(chunks, pending)))
    }

    async fn score_labels(&self, request: Request, labels: Vec<String>) -> Result<LabelScores, Error> {
        let (pending, mut client) = self.start_call();
        let request = v1::ScoreLabelsRequest { request: Some(wire::request(request)), labels };
        match pending.answer(client.score_labels(request)).await? {
            v1::ScoreLabelsResponse { error: Some(error), .. } => Err(wire::error_of(error)),
            v1::ScoreLabelsResponse { scores, usage, timings, .. } => Ok(LabelScores {
                scores,
                usage: wire::usage_of(usage.unwrap_or_default()),
                timings: wire::timings_of(timings),
            }),
        }
    }

    async fn prefill(&self, request: Request) -> Result<(), Error> {
        let (pending, mut client) = self.start_call();
        let response = pending.answer(client.prefill(wire::request(request))).await?;
        response.error.map_or(Ok(()), |error| Err(wire::error_of(error)))
    }

    async fn pool(&self, request: PoolingRequest) -> Result<PooledTexts, Error> {
        let (pending, mut client) = self.start_call();
        let response = pending.answer(client.pool(wire::pooling::pool_request(request))).await?;
        wire::pooling::pooled_of(response)
    }

    fn pin_prefixes(&self, flows: Vec<Arc<str>>) -> PrefixPin {
        if flows.is_empty() {
            return PrefixPin::new(|| {});
        }
        let mut client = self.0.client.clone();
        let call = tokio::spawn(async move {
            let flows = flows.iter().map(ToString::to_string).collect();
            let Ok(pinned) = client.pin_prefixes(v1::PinPrefixesRequest { flows }).await else { return };
            let mut pinned = pinned.into_inner();
            // The call lasts until this task is aborted, or the engine ends.
            while let Ok(Some(_)) = pinned.message().await {}
        });
        PrefixPin::new(move || call.abort())
    }

    async fn tokenize_answer(&self, request: Request, answer: String) -> Result<AnswerTokens, Error> {
        let (pending, mut client) = self.start_call();
        let request = v1::TokenizeAnswerRequest { request: Some(wire::request(request)), answer };
        wire::answer_tokens_of(pending.answer(client.tokenize_answer(request)).await?)
    }

    fn retain_adapters(&self, sets: Vec<ScaledAdapters>) {
        let mut client = self.0.client.clone();
        let sets = sets.iter().map(|set| v1::AdapterSet { adapters: wire::adapters(set) }).collect();
        tokio::spawn(async move {
            // Fails only if the engine has ended.
            let _ = client.retain_adapters(v1::RetainAdaptersRequest { sets }).await;
        });
    }

    async fn forget_text(&self) -> Result<(), Error> {
        let (pending, mut client) = self.start_call();
        let response = pending.answer(client.forget_text(v1::ForgetTextRequest {})).await?;
        response.error.map_or(Ok(()), |error| Err(wire::error_of(error)))
    }

    fn close(&self) {
        let (connection, mut client) = (self.0.clone(), self.0.client.clone());
        tokio::spawn(async move {
            let mut ended = connection.ended.clone();
            connection.closing.cancel();
            // The process may exit before it has sent the response, and one that is stopped sends none: its end counts.
            let asked = async {
                let _ = client.close(v1::CloseRequest {}).await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = asked => {}
                _ = ended.wait_for(Option::is_some) => {}
            }
        });
    }
}

/// The chunks of a generation; dropping the stream cancels the call, which ends the sequence.
fn receive(chunks: Streaming<v1::Chunk>, pending: PendingCall) -> impl tokio_stream::Stream<Item = Chunk> + Send {
    futures::stream::unfold((chunks, pending), |(mut chunks, pending)| async move {
        let message = tokio::select! {
            biased;
            message = chunks.message() => message,
            () = pending.drained() => Err(Status::unavailable("its process has ended")),
        };
        let chunk = match message {
            Ok(Some(chunk)) => wire::chunk_of(chunk),
            Ok(None) => Chunk::Failed(pending.failure(&Status::unavailable("its stream ended early")).await),
            Err(status) => Chunk::Failed(pending.failure(&status).await),
        };
        Some((chunk, (chunks, pending)))
    })
}

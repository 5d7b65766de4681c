//! An engine that runs in another process, as the daemon holds it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use artel_engine::backend::EngineLimits;
use artel_engine::{LabelScores, Chunk, Embeddings, Engine, Error, PrefixPin, Request, EngineStats, OutputStream};
use artel_proto::engine::v1;
use artel_proto::engine::v1::engine_client::EngineClient;
use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::start::last_words;
use crate::wire;

/// An engine that does not say within this time what it does is told of as it was before.
const COUNT: Duration = Duration::from_secs(2);

/// The engine of a process. The process ends when the last clone, and the last stream, is dropped.
#[derive(Clone)]
pub(crate) struct Remote(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) client: EngineClient<Channel>,
    pub(crate) limits: EngineLimits,
    pub(crate) process: u32,
    /// As they were when it was asked last.
    pub(crate) stats: Mutex<EngineStats>,
    /// Calls that are not answered yet.
    pub(crate) asked: Arc<AtomicU64>,
    pub(crate) end: watch::Receiver<Option<String>>,
    /// Cancelled when the process is to end: its end is no accident then.
    pub(crate) closing: CancellationToken,
    pub(crate) _turns: Option<AbortOnDropHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// A call that is not answered yet.
struct Asked {
    inner: Arc<Inner>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.inner.asked.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Asked {
    async fn lost(&self, status: &Status) -> Error {
        Error::Ended(last_words(&mut self.inner.end.clone(), status).await)
    }
}

impl Remote {
    fn ask(&self) -> (Asked, EngineClient<Channel>) {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        (Asked { inner: self.0.clone() }, self.0.client.clone())
    }
}

#[async_trait]
impl Engine for Remote {
    fn limits(&self) -> EngineLimits {
        self.0.limits
    }

    /// As it was when it was asked last, except that whoever asked since is counted as waiting.
    fn stats(&self) -> EngineStats {
        let stats = self.0.stats.lock().map(|stats| *stats).unwrap_or_default();
        let asked = self.0.asked.load(Ordering::Relaxed);
        let busy = stats.running.min(asked);
        EngineStats { running: busy, waiting: asked - busy, ..stats }
    }

    async fn fetch_stats(&self) -> EngineStats {
        let mut client = self.0.client.clone();
        let counted = tokio::time::timeout(COUNT, client.count(v1::CountRequest {})).await;
        if let (Ok(Ok(counted)), Ok(mut stats)) = (counted, self.0.stats.lock()) {
            *stats = wire::stats_of(counted.into_inner());
        }
        self.stats()
    }

    fn process_id(&self) -> Option<u32> {
        Some(self.0.process)
    }

    fn end_reason(&self) -> watch::Receiver<Option<String>> {
        self.0.end.clone()
    }

    async fn generate(&self, request: Request) -> Result<OutputStream, Error> {
        let (asked, mut client) = self.ask();
        match client.generate(wire::request(request)).await {
            Ok(answers) => Ok(OutputStream::remote(chunks(answers.into_inner(), asked))),
            Err(status) => Err(asked.lost(&status).await),
        }
    }

    async fn score_labels(&self, request: Request, labels: Vec<String>) -> Result<LabelScores, Error> {
        let (asked, mut client) = self.ask();
        let request = v1::ChooseRequest { request: Some(wire::request(request)), labels };
        match client.choose(request).await.map(tonic::Response::into_inner) {
            Ok(v1::ChooseResponse { error: Some(error), .. }) => Err(wire::error_of(error)),
            Ok(v1::ChooseResponse { scores, usage, timings, .. }) => Ok(LabelScores {
                scores,
                usage: wire::usage_of(usage.unwrap_or_default()),
                timings: wire::timings_of(timings),
            }),
            Err(status) => Err(asked.lost(&status).await),
        }
    }

    async fn prefill(&self, request: Request) -> Result<(), Error> {
        let (asked, mut client) = self.ask();
        match client.prime(wire::request(request)).await {
            Ok(primed) => primed.into_inner().error.map_or(Ok(()), |error| Err(wire::error_of(error))),
            Err(status) => Err(asked.lost(&status).await),
        }
    }

    async fn embed(&self, texts: Vec<String>) -> Result<Embeddings, Error> {
        let (asked, mut client) = self.ask();
        match client.embed(v1::EmbedRequest { texts }).await.map(tonic::Response::into_inner) {
            Ok(v1::EmbedResponse { error: Some(error), .. }) => Err(wire::error_of(error)),
            Ok(v1::EmbedResponse { vectors, tokens, .. }) => {
                Ok(Embeddings { vectors: vectors.into_iter().map(|vector| vector.numbers).collect(), tokens })
            }
            Err(status) => Err(asked.lost(&status).await),
        }
    }

    fn pin_prefixes(&self, flows: Vec<Arc<str>>) -> PrefixPin {
        if flows.is_empty() {
            return PrefixPin::new(|| {});
        }
        let mut client = self.0.client.clone();
        let call = tokio::spawn(async move {
            let flows = flows.iter().map(ToString::to_string).collect();
            let Ok(held) = client.expect(v1::ExpectRequest { flows }).await else { return };
            let mut held = held.into_inner();
            // It is held until we are dropped, or the engine ends.
            while let Ok(Some(_)) = held.message().await {}
        });
        PrefixPin::new(move || call.abort())
    }

    fn retain_adapters(&self, adapters: Vec<(PathBuf, f32)>) {
        let mut client = self.0.client.clone();
        let adapters = adapters.iter().map(|(path, scale)| wire::adapter(path, *scale)).collect();
        tokio::spawn(async move {
            // An engine that has ended needs no telling.
            let _ = client.keep_adapters(v1::KeepAdaptersRequest { adapters }).await;
        });
    }

    fn close(&self) {
        let (inner, mut client) = (self.0.clone(), self.0.client.clone());
        tokio::spawn(async move {
            let mut end = inner.end.clone();
            inner.closing.cancel();
            // The process may end before its answer has left it.
            let _ = client.close(v1::CloseRequest {}).await;
            let _ = end.wait_for(Option::is_some).await;
        });
    }
}

/// The chunks of an answer; dropping them gives the call up, which ends the sequence.
fn chunks(answers: Streaming<v1::Chunk>, asked: Asked) -> impl tokio_stream::Stream<Item = Chunk> + Send {
    futures::stream::unfold((answers, asked), |(mut answers, asked)| async move {
        let chunk = match answers.message().await {
            Ok(Some(chunk)) => wire::chunk_of(chunk),
            Ok(None) => Chunk::Failed(asked.lost(&Status::unavailable("its stream ended early")).await),
            Err(status) => Chunk::Failed(asked.lost(&status).await),
        };
        Some((chunk, (answers, asked)))
    })
}

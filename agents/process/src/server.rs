//! The process's side: an engine behind a socket.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use artel_engine::backend::EngineLimits;
use artel_engine::{self as engine, EngineHandle, SharedCpu};
use artel_proto::engine::v1;
use artel_proto::engine::v1::engine_server::EngineServer;
use async_trait::async_trait;
use tokio::net::UnixStream;
use tokio::sync::{SetOnce, mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use crate::turns::Lease;
use crate::{MESSAGE, Memory, wire};

/// Calls at once: more than the daemon has tasks. Both ends are ours, so nobody has to be kept from cancelling many at once.
const STREAMS: u32 = 1 << 20;
/// An engine that nobody needs gets so long to end its batch and free its model.
const FREE: Duration = Duration::from_secs(5);

/// Loads what a process was started for.
#[async_trait]
pub trait Loading: Send + Sync + 'static {
    /// Loads the model that `spec` describes; `progress` takes shares from 0 to 1. Engines that compute on cores which others
    /// use too take turns.
    async fn load(
        &self,
        spec: &str,
        turn: Option<SharedCpu>,
        progress: Arc<dyn Fn(f32) + Send + Sync>,
    ) -> Result<(EngineHandle, Vec<Memory>), String>;
}

/// How a process's service ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serving {
    /// The daemon asked for the end, and the model is freed.
    Closed,
    /// Nobody needs the engine any more, or the daemon is gone. The model is freed, unless that took too long: then the
    /// engine's thread still computes.
    Abandoned {
        /// Whether the model is freed.
        freed: bool,
    },
    /// The engine ended by itself, for this reason.
    Ended(String),
}

/// Answers on a connected socket, until the daemon asks for the end or is gone.
///
/// # Errors
/// If the socket cannot be used.
pub async fn serve(socket: std::os::unix::net::UnixStream, loading: impl Loading) -> std::io::Result<Serving> {
    socket.set_nonblocking(true)?;
    let (gone, ended) = (CancellationToken::new(), Arc::new(SetOnce::new()));
    let socket = Line { socket: UnixStream::from_std(socket)?, _gone: gone.clone().drop_guard() };
    let (lease, says) = Lease::new();
    let service = Service {
        loading: Arc::new(loading),
        engine: Arc::default(),
        lease: lease.clone(),
        says: Arc::new(Mutex::new(Some(says))),
        ended: ended.clone(),
        closing: Arc::default(),
    };
    let engine = service.engine.clone();
    let service = EngineServer::new(service).max_decoding_message_size(MESSAGE).max_encoding_message_size(MESSAGE);
    // After the one connection there is no other.
    let incoming = tokio_stream::once(Ok::<_, std::io::Error>(socket)).chain(tokio_stream::pending());
    let server = Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_max_pending_accept_reset_streams(Some(STREAMS as usize))
        .add_service(service)
        .serve_with_incoming(incoming);
    tokio::select! {
        served = server => served.map_err(std::io::Error::other)?,
        serving = ended.wait() => return Ok(serving.clone()),
        () = gone.cancelled() => {}
    }
    lease.end();
    let freed = match engine.get() {
        Some(engine) => tokio::time::timeout(FREE, engine.close()).await.is_ok(),
        None => false,
    };
    Ok(Serving::Abandoned { freed })
}

/// The connection to the daemon; dropped when that is closed.
struct Line {
    socket: UnixStream,
    _gone: tokio_util::sync::DropGuard,
}

impl Connected for Line {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl tokio::io::AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[derive(Clone)]
struct Service {
    loading: Arc<dyn Loading>,
    engine: Arc<OnceLock<EngineHandle>>,
    lease: Lease,
    says: Arc<Mutex<Option<mpsc::UnboundedReceiver<bool>>>>,
    ended: Arc<SetOnce<Serving>>,
    closing: Arc<OnceLock<()>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    fn engine(&self) -> Result<&EngineHandle, Status> {
        self.engine.get().ok_or_else(|| Status::failed_precondition("no model is loaded"))
    }

    async fn load_now(&self, request: v1::LoadRequest, events: mpsc::Sender<Result<v1::LoadEvent, Status>>) {
        use v1::load_event::Event;
        let say = |event| Ok(v1::LoadEvent { event: Some(event) });
        let shares = events.clone();
        let progress = Arc::new(move |share: f32| {
            // One that is not taken in time is followed by another.
            let _ = shares.try_send(say(Event::Fraction(share)));
        });
        let turn = request.turns.then(|| SharedCpu::new(self.lease.clone()));
        let event = match self.loading.load(&request.spec, turn, progress).await {
            Ok((handle, memory)) => {
                let (limits, watcher) = (handle.limits(), handle.watch_end());
                let (ended, closing) = (self.ended.clone(), self.closing.clone());
                // A process is started for one model, so there is no other.
                let _ = self.engine.set(handle);
                // An engine that ends by itself has no more use for its process.
                tokio::spawn(async move {
                    let reason = watcher.await;
                    let serving = if closing.get().is_some() { Serving::Closed } else { Serving::Ended(reason) };
                    // The request to close may have said so already.
                    let _ = ended.set(serving);
                });
                Event::Loaded(loaded(limits, memory))
            }
            Err(reason) => Event::Failed(reason),
        };
        // The daemon may have stopped waiting.
        let _ = events.send(say(event)).await;
    }
}

fn loaded(limits: EngineLimits, memory: Vec<Memory>) -> v1::Loaded {
    v1::Loaded { limits: Some(wire::limits(limits)), memory: memory.into_iter().map(wire::memory).collect() }
}

#[async_trait]
impl v1::engine_server::Engine for Service {
    type LoadStream = Answers<v1::LoadEvent>;
    type GenerateStream = Answers<v1::Chunk>;
    type ExpectStream = Answers<v1::Expected>;
    type TurnsStream = Answers<v1::Ask>;

    async fn load(&self, request: Request<v1::LoadRequest>) -> Result<Response<Self::LoadStream>, Status> {
        let (events, answers) = mpsc::channel(16);
        let (this, request) = (self.clone(), request.into_inner());
        tokio::spawn(async move { this.load_now(request, events).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn generate(&self, request: Request<v1::GenerateRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        let request = wire::request_of(request.into_inner());
        let begun = match request {
            Ok(request) => self.engine()?.generate(request).await,
            Err(error) => Err(error),
        };
        let answers: Self::GenerateStream = match begun {
            Ok(stream) => Box::pin(chunks(stream)),
            Err(error) => {
                let failed = wire::chunk(engine::Chunk::Failed(error));
                Box::pin(tokio_stream::iter(failed.map(Ok)))
            }
        };
        Ok(Response::new(answers))
    }

    async fn choose(&self, request: Request<v1::ChooseRequest>) -> Result<Response<v1::ChooseResponse>, Status> {
        let v1::ChooseRequest { request, labels } = request.into_inner();
        let chosen = match wire::request_of(request.unwrap_or_default()) {
            Ok(request) => self.engine()?.score_labels(request, labels).await,
            Err(error) => Err(error),
        };
        Ok(Response::new(match chosen {
            Ok(choice) => v1::ChooseResponse {
                scores: choice.scores,
                usage: Some(wire::usage(choice.usage)),
                timings: Some(wire::timings(choice.timings)),
                error: None,
            },
            Err(error) => v1::ChooseResponse { error: Some(wire::error(error)), ..v1::ChooseResponse::default() },
        }))
    }

    async fn prime(&self, request: Request<v1::GenerateRequest>) -> Result<Response<v1::PrimeResponse>, Status> {
        let primed = match wire::request_of(request.into_inner()) {
            Ok(request) => self.engine()?.prefill(request).await,
            Err(error) => Err(error),
        };
        Ok(Response::new(v1::PrimeResponse { error: primed.err().map(wire::error) }))
    }

    async fn embed(&self, request: Request<v1::EmbedRequest>) -> Result<Response<v1::EmbedResponse>, Status> {
        let embedded = self.engine()?.embed(request.into_inner().texts).await;
        Ok(Response::new(match embedded {
            Ok(embedded) => v1::EmbedResponse {
                vectors: embedded.vectors.into_iter().map(|numbers| v1::Vector { numbers }).collect(),
                tokens: embedded.tokens,
                error: None,
            },
            Err(error) => v1::EmbedResponse { error: Some(wire::error(error)), ..v1::EmbedResponse::default() },
        }))
    }

    async fn expect(&self, request: Request<v1::ExpectRequest>) -> Result<Response<Self::ExpectStream>, Status> {
        let flows = request.into_inner().flows.into_iter().map(Into::into).collect();
        let expectation = self.engine()?.pin_prefixes(flows);
        let held = tokio_stream::once(Ok(v1::Expected {})).chain(tokio_stream::pending()).map(move |expected| {
            // It lasts as long as the call, which holds this closure.
            let _ = &expectation;
            expected
        });
        Ok(Response::new(Box::pin(held)))
    }

    async fn keep_adapters(
        &self,
        request: Request<v1::KeepAdaptersRequest>,
    ) -> Result<Response<v1::KeepAdaptersResponse>, Status> {
        self.engine()?.retain_adapters(request.into_inner().adapters.iter().map(wire::adapter_of));
        Ok(Response::new(v1::KeepAdaptersResponse {}))
    }

    async fn count(&self, _: Request<v1::CountRequest>) -> Result<Response<v1::Stats>, Status> {
        Ok(Response::new(wire::stats(self.engine()?.stats())))
    }

    async fn turns(&self, request: Request<Streaming<v1::Grant>>) -> Result<Response<Self::TurnsStream>, Status> {
        let says = self.says.lock().expect("nothing panics while it holds it").take();
        let says = says.ok_or_else(|| Status::already_exists("turns are told by one call"))?;
        let (lease, mut grants) = (self.lease.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(grant)) = grants.message().await {
                lease.told(grant.yours);
            }
            lease.end();
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(says).map(|want| Ok(v1::Ask { want })))))
    }

    async fn close(&self, _: Request<v1::CloseRequest>) -> Result<Response<v1::CloseResponse>, Status> {
        let _ = self.closing.set(());
        if let Some(engine) = self.engine.get() {
            self.lease.end();
            engine.close().await;
        }
        // An engine that ended by itself meanwhile has ended all the same.
        let _ = self.ended.set(Serving::Closed);
        Ok(Response::new(v1::CloseResponse {}))
    }
}

/// Dropping it drops the engine's stream, which ends the sequence.
fn chunks(stream: engine::OutputStream) -> impl Stream<Item = Result<v1::Chunk, Status>> + Send {
    futures::stream::unfold(stream, |mut stream| async move {
        let chunk = wire::chunk(stream.recv().await?)?;
        Some((Ok(chunk), stream))
    })
}

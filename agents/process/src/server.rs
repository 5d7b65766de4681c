//! The engine process's side: serves an engine on a socket.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use artel_engine::{self as engine, EngineActivity, EngineHandle, Heartbeat, LoadError, SharedCpu};
use async_trait::async_trait;
use tokio::net::UnixStream;
use tokio::sync::{SetOnce, mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use crate::cpu_lease::CpuLeaseClient;
use crate::wire::v1::engine_server::EngineServer;
use crate::wire::{self, v1};
use crate::{DeviceMemory, MAX_MESSAGE_BYTES};

/// Concurrent calls: more than the daemon has tasks. The same limit applies to cancelled calls, since the client is trusted.
const MAX_CONCURRENT_CALLS: u32 = 1 << 20;
/// The time for an engine without a client to end its batch and free its model.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Loads the model of an engine process.
#[async_trait]
pub trait EngineLoader: Send + Sync + 'static {
    /// Loads the model that `spec` describes; `progress` takes the fraction loaded, from 0 to 1. An engine that shares CPU cores
    /// with others must hold `shared_cpu` while it computes.
    async fn load(
        &self,
        spec: &str,
        shared_cpu: Option<SharedCpu>,
        progress: Arc<dyn Fn(f32) + Send + Sync>,
    ) -> Result<(EngineHandle, Vec<DeviceMemory>), LoadError>;

    /// Logs what this filter says from now on. The program interprets it, as it does the one with which it was started.
    fn set_log_level(&self, _filter: &str) {}
}

/// The reason why [`serve`] returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServeOutcome {
    /// The daemon closed the engine, and the model is freed.
    Closed,
    /// The daemon closed the connection or exited. The model is freed, unless that took too long: then the engine's thread still
    /// computes.
    Disconnected {
        /// Whether the model is freed.
        is_freed: bool,
    },
    /// The engine ended by itself, for this reason.
    EngineEnded(String),
}

/// Serves on a connected socket, until the daemon closes the engine or disconnects.
///
/// # Errors
/// If the socket cannot be used.
pub async fn serve(socket: std::os::unix::net::UnixStream, loader: impl EngineLoader) -> std::io::Result<ServeOutcome> {
    socket.set_nonblocking(true)?;
    let (disconnected, ended) = (CancellationToken::new(), Arc::new(SetOnce::new()));
    let socket =
        DaemonConnection { socket: UnixStream::from_std(socket)?, _disconnected: disconnected.clone().drop_guard() };
    let (cpu_lease, lease_requests) = CpuLeaseClient::new();
    let service = EngineService {
        loader: Arc::new(loader),
        engine: Arc::default(),
        cpu_lease: cpu_lease.clone(),
        lease_requests: Arc::new(Mutex::new(Some(lease_requests))),
        ended: ended.clone(),
        closing: Arc::default(),
        load_beats: Arc::default(),
    };
    let engine = service.engine.clone();
    let service = EngineServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    // There is only this one connection.
    let incoming = tokio_stream::once(Ok::<_, std::io::Error>(socket)).chain(tokio_stream::pending());
    let server = Server::builder()
        .max_concurrent_streams(MAX_CONCURRENT_CALLS)
        .http2_max_pending_accept_reset_streams(Some(MAX_CONCURRENT_CALLS as usize))
        .add_service(service)
        .serve_with_incoming(incoming);
    tokio::select! {
        served = server => served.map_err(std::io::Error::other)?,
        outcome = ended.wait() => return Ok(outcome.clone()),
        () = disconnected.cancelled() => {}
    }
    cpu_lease.close();
    let is_freed = match engine.get() {
        Some(engine) => tokio::time::timeout(CLOSE_TIMEOUT, engine.close()).await.is_ok(),
        None => false,
    };
    Ok(ServeOutcome::Disconnected { is_freed })
}

/// The connection to the daemon; dropped when it is closed.
struct DaemonConnection {
    socket: UnixStream,
    _disconnected: tokio_util::sync::DropGuard,
}

impl Connected for DaemonConnection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl tokio::io::AsyncRead for DaemonConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for DaemonConnection {
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
struct EngineService {
    loader: Arc<dyn EngineLoader>,
    engine: Arc<OnceLock<EngineHandle>>,
    cpu_lease: CpuLeaseClient,
    lease_requests: Arc<Mutex<Option<mpsc::UnboundedReceiver<bool>>>>,
    ended: Arc<SetOnce<ServeOutcome>>,
    closing: Arc<OnceLock<()>>,
    /// Counts the reports of progress in loading: the heartbeat until the model is loaded.
    load_beats: Arc<AtomicU64>,
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl EngineService {
    fn engine(&self) -> Result<&EngineHandle, Status> {
        self.engine.get().ok_or_else(|| Status::failed_precondition("no model is loaded"))
    }

    async fn load_now(&self, request: v1::LoadRequest, events: mpsc::Sender<Result<v1::LoadEvent, Status>>) {
        use v1::load_event::Event;
        let message = |event| Ok(v1::LoadEvent { event: Some(event) });
        let (progress_events, beats) = (events.clone(), self.load_beats.clone());
        let progress = Arc::new(move |fraction: f32| {
            beats.fetch_add(1, Ordering::Relaxed);
            // If the channel is full, a later event replaces this one.
            let _ = progress_events.try_send(message(Event::Fraction(fraction)));
        });
        let shared_cpu = request.shares_cpu.then(|| SharedCpu::new(self.cpu_lease.clone()));
        let event = match self.loader.load(&request.spec, shared_cpu, progress).await {
            Ok((handle, memory)) => {
                let (loaded, watcher) = (loaded(&handle, memory), handle.watch_end());
                let (ended, closing) = (self.ended.clone(), self.closing.clone());
                // Never set before, because a process loads one model.
                let _ = self.engine.set(handle);
                // When the engine ends by itself, the process ends too.
                tokio::spawn(async move {
                    let reason = watcher.await;
                    let outcome =
                        if closing.get().is_some() { ServeOutcome::Closed } else { ServeOutcome::EngineEnded(reason) };
                    // The close call may have set it already.
                    let _ = ended.set(outcome);
                });
                Event::Loaded(loaded)
            }
            Err(error) => Event::Failed(wire::load_error(&error)),
        };
        // The daemon may have cancelled the call.
        let _ = events.send(message(event)).await;
    }
}

fn loaded(engine: &EngineHandle, memory: Vec<DeviceMemory>) -> v1::Loaded {
    v1::Loaded {
        limits: Some(wire::limits(engine.limits())),
        memory: memory.into_iter().map(wire::memory).collect(),
        sampling_defaults: wire::sampling_defaults(&engine.sampling_defaults()),
    }
}

#[async_trait]
impl v1::engine_server::Engine for EngineService {
    type LoadStream = ResponseStream<v1::LoadEvent>;
    type GenerateStream = ResponseStream<v1::Chunk>;
    type PinPrefixesStream = ResponseStream<v1::PrefixesPinned>;
    type LeaseCpuStream = ResponseStream<v1::CpuLeaseRequest>;

    async fn load(&self, request: Request<v1::LoadRequest>) -> Result<Response<Self::LoadStream>, Status> {
        let (events, responses) = mpsc::channel(16);
        let (this, request) = (self.clone(), request.into_inner());
        tokio::spawn(async move { this.load_now(request, events).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }

    async fn generate(&self, request: Request<v1::GenerateRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        let request = wire::request_of(request.into_inner());
        let generation = match request {
            Ok(request) => self.engine()?.generate(request).await,
            Err(error) => Err(error),
        };
        let responses: Self::GenerateStream = match generation {
            Ok(stream) => Box::pin(chunks(stream)),
            Err(error) => {
                let failed = wire::chunk(engine::Chunk::Failed(error));
                Box::pin(tokio_stream::iter(failed.map(Ok)))
            }
        };
        Ok(Response::new(responses))
    }

    async fn score_labels(
        &self,
        request: Request<v1::ScoreLabelsRequest>,
    ) -> Result<Response<v1::ScoreLabelsResponse>, Status> {
        let v1::ScoreLabelsRequest { request, labels } = request.into_inner();
        let scored = match wire::request_of(request.unwrap_or_default()) {
            Ok(request) => self.engine()?.score_labels(request, labels).await,
            Err(error) => Err(error),
        };
        Ok(Response::new(match scored {
            Ok(result) => v1::ScoreLabelsResponse {
                scores: result.scores,
                usage: Some(wire::usage(result.usage)),
                timings: Some(wire::timings(result.timings)),
                error: None,
            },
            Err(error) => {
                v1::ScoreLabelsResponse { error: Some(wire::error(error)), ..v1::ScoreLabelsResponse::default() }
            }
        }))
    }

    async fn tokenize_answer(
        &self,
        request: Request<v1::TokenizeAnswerRequest>,
    ) -> Result<Response<v1::TokenizeAnswerResponse>, Status> {
        let v1::TokenizeAnswerRequest { request, answer } = request.into_inner();
        let tokenized = match wire::request_of(request.unwrap_or_default()) {
            Ok(request) => self.engine()?.tokenize_answer(request, answer).await,
            Err(error) => Err(error),
        };
        Ok(Response::new(wire::answer_tokens(tokenized)))
    }

    async fn prefill(&self, request: Request<v1::GenerateRequest>) -> Result<Response<v1::PrefillResponse>, Status> {
        let prefilled = match wire::request_of(request.into_inner()) {
            Ok(request) => self.engine()?.prefill(request).await,
            Err(error) => Err(error),
        };
        Ok(Response::new(v1::PrefillResponse { error: prefilled.err().map(wire::error) }))
    }

    async fn pool(&self, request: Request<v1::PoolRequest>) -> Result<Response<v1::PoolResponse>, Status> {
        let pooled = self.engine()?.pool(wire::pooling::pool_request_of(request.into_inner())).await;
        Ok(Response::new(wire::pooling::pooled(pooled)))
    }

    async fn pin_prefixes(
        &self,
        request: Request<v1::PinPrefixesRequest>,
    ) -> Result<Response<Self::PinPrefixesStream>, Status> {
        let flows = request.into_inner().flows.into_iter().map(Into::into).collect();
        let pin = self.engine()?.pin_prefixes(flows);
        let pinned = tokio_stream::once(Ok(v1::PrefixesPinned {})).chain(tokio_stream::pending()).map(move |message| {
            // The pin lasts as long as the call, which holds this closure.
            let _ = &pin;
            message
        });
        Ok(Response::new(Box::pin(pinned)))
    }

    async fn retain_adapters(
        &self,
        request: Request<v1::RetainAdaptersRequest>,
    ) -> Result<Response<v1::RetainAdaptersResponse>, Status> {
        let sets = request.into_inner().sets;
        self.engine()?.retain_adapters(sets.iter().map(|set| wire::adapters_of(&set.adapters)));
        Ok(Response::new(v1::RetainAdaptersResponse {}))
    }

    async fn forget_text(&self, _: Request<v1::ForgetTextRequest>) -> Result<Response<v1::ForgetTextResponse>, Status> {
        let forgotten = self.engine()?.forget_text().await;
        Ok(Response::new(v1::ForgetTextResponse { error: forgotten.err().map(wire::error) }))
    }

    async fn get_stats(&self, _: Request<v1::GetStatsRequest>) -> Result<Response<v1::EngineStats>, Status> {
        Ok(Response::new(wire::stats(self.engine()?.stats())))
    }

    async fn get_heartbeat(&self, _: Request<v1::GetHeartbeatRequest>) -> Result<Response<v1::Heartbeat>, Status> {
        let loading = || Heartbeat {
            beats: self.load_beats.load(Ordering::Relaxed),
            activity: EngineActivity::Computes { expected: None },
        };
        let heartbeat = self.engine.get().and_then(EngineHandle::heartbeat).unwrap_or_else(loading);
        Ok(Response::new(wire::heartbeat(heartbeat)))
    }

    async fn lease_cpu(
        &self,
        request: Request<Streaming<v1::CpuLeaseNotice>>,
    ) -> Result<Response<Self::LeaseCpuStream>, Status> {
        let lease_requests = self.lease_requests.lock().expect("nothing panics while it holds the lock").take();
        let lease_requests = lease_requests.ok_or_else(|| Status::already_exists("the CPU lease has one call"))?;
        let (cpu_lease, mut notices) = (self.cpu_lease.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(notice)) = notices.message().await {
                cpu_lease.on_notice(notice.granted);
            }
            cpu_lease.close();
        });
        Ok(Response::new(Box::pin(
            UnboundedReceiverStream::new(lease_requests).map(|acquire| Ok(v1::CpuLeaseRequest { acquire })),
        )))
    }

    async fn set_log_level(
        &self,
        request: Request<v1::SetLogLevelRequest>,
    ) -> Result<Response<v1::SetLogLevelResponse>, Status> {
        self.loader.set_log_level(&request.into_inner().filter);
        Ok(Response::new(v1::SetLogLevelResponse {}))
    }

    async fn close(&self, _: Request<v1::CloseRequest>) -> Result<Response<v1::CloseResponse>, Status> {
        let _ = self.closing.set(());
        if let Some(engine) = self.engine.get() {
            self.cpu_lease.close();
            engine.close().await;
        }
        // The engine may have ended by itself meanwhile.
        let _ = self.ended.set(ServeOutcome::Closed);
        Ok(Response::new(v1::CloseResponse {}))
    }
}

/// The chunks of a generation; dropping the stream drops that of the engine, which ends the sequence.
fn chunks(stream: engine::OutputStream) -> impl Stream<Item = Result<v1::Chunk, Status>> + Send {
    futures::stream::unfold(stream, |mut stream| async move {
        let chunk = wire::chunk(stream.recv().await?)?;
        Some((Ok(chunk), stream))
    })
}

//! The gRPC services. The generated types of `artel.v1` are converted here and not passed on.

mod catalog;
mod convert;
mod engines;
mod page;
mod router;
mod size;
mod status;
mod task_view;
mod tasks;
mod value;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::serve::loader::LlamaLoader;
use crate::serve::reload::ReloadStatus;
use anyhow::{Context as _, Result};
use artel_actors::Runtime;
use artel_journal::FeedbackStore;
use artel_proto::FILE_DESCRIPTOR_SET;
use artel_proto::v1::catalog_server::CatalogServer;
use artel_proto::v1::engines_server::EnginesServer;
use artel_proto::v1::router_server::RouterServer;
use artel_proto::v1::tasks_server::TasksServer;
use size::MAX_REQUEST_BYTES;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService as _;
use tonic::transport::Server;
use tonic::{Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// What a call returns.
type RpcResponse<T> = Result<Response<T>, Status>;

/// Concurrent streams of one connection: more than one client needs to watch.
const MAX_STREAMS: u32 = 1024;
/// Interval of HTTP/2 keepalive pings.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long the server waits for open calls when it closes.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The state shared by all services.
#[derive(Clone)]
pub(crate) struct ServiceState {
    pub(crate) runtime: Runtime,
    /// Loads models and knows the devices.
    pub(crate) loader: Arc<LlamaLoader>,
    /// The store of feedback on decisions.
    pub(crate) feedback: FeedbackStore,
    /// The directory of GGUF files.
    pub(crate) models: PathBuf,
    /// The directory against which relative paths in an applied catalog are resolved.
    pub(crate) base_dir: PathBuf,
    /// The problems of the catalog's directory.
    pub(crate) reload_status: ReloadStatus,
    /// Cancelled when the daemon accepts no new work: its health is `NOT_SERVING`, and streams continue.
    pub(crate) draining: CancellationToken,
    /// Cancelled when the daemon closes: streams end.
    pub(crate) closing: CancellationToken,
}

/// Sets the health of every service and of the daemon as a whole.
async fn set_health(reporter: &HealthReporter, status: ServingStatus) {
    let services =
        [TasksServer::<ServiceState>::NAME, CatalogServer::<ServiceState>::NAME, RouterServer::<ServiceState>::NAME];
    for service in services.into_iter().chain([EnginesServer::<ServiceState>::NAME, ""]) {
        reporter.set_service_status(service, status).await;
    }
}

/// Serves until `closing` is cancelled, and then until the open calls have ended.
pub(crate) async fn serve(state: ServiceState, listener: TcpListener) -> Result<()> {
    let closing = state.closing.clone();
    let (reporter, health) = tonic_health::server::health_reporter();
    set_health(&reporter, ServingStatus::Serving).await;
    let (draining, runtime) = (state.draining.clone(), state.runtime.clone());
    tokio::spawn(async move {
        let health = async {
            loop {
                // The services still answer where no write is needed.
                runtime.journal_failed().await;
                set_health(&reporter, ServingStatus::NotServing).await;
                runtime.journal_writable().await;
                set_health(&reporter, ServingStatus::Serving).await;
            }
        };
        tokio::select! {
            () = draining.cancelled() => {}
            () = health => {}
        }
        set_health(&reporter, ServingStatus::NotServing).await;
    });
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .max_concurrent_streams(MAX_STREAMS)
        .layer(tower::util::MapResponseLayer::new(size::with_size_details))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        // Older generic clients support only this version.
        .add_service(reflection().build_v1alpha()?)
        .add_service(TasksServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(CatalogServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(RouterServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(EnginesServer::new(state).max_decoding_message_size(MAX_REQUEST_BYTES));
    let incoming = TcpListenerStream::new(listener);
    router.serve_with_incoming_shutdown(incoming, closing.cancelled_owned()).await.context("failed to serve")
}

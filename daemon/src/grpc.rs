//! The gRPC services. Generated types of `artel.v1` go no further than here.

mod catalog;
mod convert;
mod fleet;
mod fold;
mod page;
mod router;
mod size;
mod status;
mod tasks;
mod value;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::serve::loader::LlamaLoader;
use crate::serve::reload::Wrong;
use anyhow::{Context as _, Result};
use artel_actors::Runtime;
use artel_journal::Feedback;
use artel_proto::FILE_DESCRIPTOR_SET;
use artel_proto::v1::catalog_server::CatalogServer;
use artel_proto::v1::fleet_server::FleetServer;
use artel_proto::v1::router_server::RouterServer;
use artel_proto::v1::tasks_server::TasksServer;
use size::MAX_REQUEST;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService as _;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Streams of one connection at once: more than one client has reason to watch.
const MAX_STREAMS: u32 = 1024;
/// How often a silent connection is asked whether it still lives.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long the server waits for its clients when it closes.
pub(crate) const CLOSE: Duration = Duration::from_secs(5);

/// What the services serve.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) crew: Runtime,
    /// What loads models, and knows the devices.
    pub(crate) loader: Arc<LlamaLoader>,
    /// What people say about decisions.
    pub(crate) feedback: Feedback,
    /// Where GGUF files are looked for.
    pub(crate) models: PathBuf,
    /// What relative paths in an applied catalog are relative to.
    pub(crate) place: PathBuf,
    /// What is wrong with the catalog's directory.
    pub(crate) wrong: Wrong,
    /// Cancelled when the daemon takes nothing new: it is not healthy any more, and streams go on.
    pub(crate) draining: CancellationToken,
    /// Cancelled when the daemon closes: streams end.
    pub(crate) closing: CancellationToken,
}

/// Says how all services are, and the daemon as a whole.
async fn report(reporter: &HealthReporter, status: ServingStatus) {
    let services = [TasksServer::<Served>::NAME, CatalogServer::<Served>::NAME, RouterServer::<Served>::NAME];
    for service in services.into_iter().chain([FleetServer::<Served>::NAME, ""]) {
        reporter.set_service_status(service, status).await;
    }
}

/// Serves until `closing`, and then until the open calls are answered.
pub(crate) async fn serve(served: Served, listener: TcpListener) -> Result<()> {
    let closing = served.closing.clone();
    let (reporter, health) = tonic_health::server::health_reporter();
    report(&reporter, ServingStatus::Serving).await;
    let (draining, crew) = (served.draining.clone(), served.crew.clone());
    tokio::spawn(async move {
        let health = async {
            loop {
                // It goes on answering what it can, and says that it is not well.
                crew.journal_failed().await;
                report(&reporter, ServingStatus::NotServing).await;
                crew.journal_writable().await;
                report(&reporter, ServingStatus::Serving).await;
            }
        };
        tokio::select! {
            () = draining.cancelled() => {}
            () = health => {}
        }
        report(&reporter, ServingStatus::NotServing).await;
    });
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .max_concurrent_streams(MAX_STREAMS)
        .layer(tower::util::MapResponseLayer::new(size::explained))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        // Older generic clients know this version alone.
        .add_service(reflection().build_v1alpha()?)
        .add_service(TasksServer::new(served.clone()).max_decoding_message_size(MAX_REQUEST))
        .add_service(CatalogServer::new(served.clone()).max_decoding_message_size(MAX_REQUEST))
        .add_service(RouterServer::new(served.clone()).max_decoding_message_size(MAX_REQUEST))
        .add_service(FleetServer::new(served).max_decoding_message_size(MAX_REQUEST));
    let incoming = TcpListenerStream::new(listener);
    router.serve_with_incoming_shutdown(incoming, closing.cancelled_owned()).await.context("failed to serve")
}

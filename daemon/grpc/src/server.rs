//! The gRPC server: the services, their health, and reflection.

use std::time::Duration;

use artel_proto::FILE_DESCRIPTOR_SET;
use artel_proto::v1::catalog_server::CatalogServer;
use artel_proto::v1::engines_server::EnginesServer;
use artel_proto::v1::router_server::RouterServer;
use artel_proto::v1::tasks_server::TasksServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::server::NamedService as _;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::size::{MAX_REQUEST_BYTES, with_size_details};
use crate::state::ServiceState;

/// Concurrent streams of one connection: more than one client needs to watch.
const MAX_STREAMS: u32 = 1024;
/// Interval of HTTP/2 keepalive pings.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long the server waits for open calls when it closes.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptors of the protos are damaged.
    #[error("failed to describe the services for reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The socket or the HTTP/2 server failed.
    #[error("failed to serve")]
    Transport(#[from] tonic::transport::Error),
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
///
/// # Errors
/// The socket or the HTTP/2 server failed.
pub async fn serve(state: ServiceState, listener: TcpListener) -> Result<(), Error> {
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
        .layer(tower::util::MapResponseLayer::new(with_size_details))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        // Older generic clients support only this version.
        .add_service(reflection().build_v1alpha()?)
        .add_service(TasksServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(CatalogServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(RouterServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(EnginesServer::new(state).max_decoding_message_size(MAX_REQUEST_BYTES));
    let incoming = TcpListenerStream::new(listener);
    Ok(router.serve_with_incoming_shutdown(incoming, closing.cancelled_owned()).await?)
}

//! The gRPC server: the services, their health, and reflection.

use artel_accept::Acceptor;
use artel_proto::FILE_DESCRIPTOR_SET;
use artel_proto::v1::catalog_server::CatalogServer;
use artel_proto::v1::engines_server::EnginesServer;
use artel_proto::v1::router_server::RouterServer;
use artel_proto::v1::tasks_server::TasksServer;
use tokio::task::{JoinError, JoinSet};
use tonic::server::NamedService as _;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;
use tower::util::MapResponse;

use crate::connection::{self, ConnectionEnd, ConnectionTimeouts};
use crate::counted_calls::Services;
use crate::malformed::with_decode_details;
use crate::size::{MAX_REQUEST_BYTES, with_size_details};
use crate::state::ServiceState;

/// Why the server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptors of the protos are damaged.
    #[error("failed to describe the services for reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Sets the health of every service and of the daemon as a whole.
async fn set_health(reporter: &HealthReporter, status: ServingStatus) {
    let services =
        [TasksServer::<ServiceState>::NAME, CatalogServer::<ServiceState>::NAME, RouterServer::<ServiceState>::NAME];
    for service in services.into_iter().chain([EnginesServer::<ServiceState>::NAME, ""]) {
        reporter.set_service_status(service, status).await;
    }
}

/// Serves until `closing` is cancelled, and then until the open calls have ended or their time is over. Returns how many
/// connections were cut off.
///
/// # Errors
/// The services cannot be described.
pub async fn serve(state: ServiceState, mut acceptor: Acceptor, timeouts: ConnectionTimeouts) -> Result<usize, Error> {
    let closing = state.closing.clone();
    let services = services(state).await?;
    let mut connections = JoinSet::new();
    let mut cut_off = 0;
    loop {
        let (stream, slot) = tokio::select! {
            () = closing.cancelled() => break,
            accepted = acceptor.accept() => accepted,
            Some(end) = connections.join_next() => {
                cut_off += count_cut_off(end);
                continue;
            }
        };
        connections.spawn(connection::serve(services.clone(), stream, slot, timeouts, closing.clone()));
    }
    // New clients are refused by the system.
    drop(acceptor);
    while let Some(end) = connections.join_next().await {
        cut_off += count_cut_off(end);
    }
    Ok(cut_off)
}

fn count_cut_off(end: Result<ConnectionEnd, JoinError>) -> usize {
    match end {
        Ok(ConnectionEnd::CutOff) => 1,
        Ok(ConnectionEnd::Closed) => 0,
        Err(error) => {
            tracing::error!(%error, "serving a connection panicked; others go on");
            0
        }
    }
}

/// Reports the health of the services while the daemon accepts work.
async fn health_service(state: &ServiceState) -> HealthServer<impl Health> {
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
    health
}

async fn services(state: ServiceState) -> Result<Services, Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::new(health_service(&state).await)
        .add_service(reflection().build_v1()?)
        // Older generic clients support only this version.
        .add_service(reflection().build_v1alpha()?)
        .add_service(TasksServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(CatalogServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(RouterServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(EnginesServer::new(state).max_decoding_message_size(MAX_REQUEST_BYTES));
    Ok(MapResponse::new(MapResponse::new(routes.prepare(), with_decode_details), with_size_details))
}

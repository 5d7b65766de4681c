//! The routes of gRPC: the services, their health, and reflection.

use artel_proto::FILE_DESCRIPTOR_SET;
use artel_proto::v1::access_server::AccessServer;
use artel_proto::v1::admin_server::AdminServer;
use artel_proto::v1::catalog_server::CatalogServer;
use artel_proto::v1::engines_server::EnginesServer;
use artel_proto::v1::knowledge_server::KnowledgeServer;
use artel_proto::v1::models_server::ModelsServer;
use artel_proto::v1::router_server::RouterServer;
use artel_proto::v1::tasks_server::TasksServer;
use artel_proto::v1::training_server::TrainingServer;
use axum::Router;
use axum::middleware::{from_fn, map_response};
use axum::response::Response;
use tonic::server::NamedService as _;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;
use tower::layer::layer_fn;

use crate::access_gate::AccessLayer;
use crate::call_deadline::with_deadline;
use crate::malformed::with_decode_details;
use crate::metered_calls::MeteredCalls;
use crate::size::{MAX_REQUEST_BYTES, with_size_details};
use crate::state::ServiceState;

/// Why there are no routes.
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
    let more = [
        ModelsServer::<ServiceState>::NAME,
        KnowledgeServer::<ServiceState>::NAME,
        TrainingServer::<ServiceState>::NAME,
        EnginesServer::<ServiceState>::NAME,
        AccessServer::<ServiceState>::NAME,
        AdminServer::<ServiceState>::NAME,
        "",
    ];
    for service in services.into_iter().chain(more) {
        reporter.set_service_status(service, status).await;
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

/// The routes of all services. Their errors have details, also those that do not come from them.
///
/// # Errors
/// The services cannot be described.
pub async fn routes(state: ServiceState) -> Result<Router, Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (metrics, tracer) = (state.runtime.metrics().clone(), state.runtime.tracer().cloned());
    let routes = Routes::new(health_service(&state).await)
        .add_service(reflection().build_v1()?)
        // Older generic clients support only this version.
        .add_service(reflection().build_v1alpha()?)
        .add_service(TasksServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(CatalogServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(RouterServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(ModelsServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(KnowledgeServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(TrainingServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(AccessServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(AdminServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(EnginesServer::new(state.clone()).max_decoding_message_size(MAX_REQUEST_BYTES));
    let routes = routes.into_axum_router();
    let metered = layer_fn(move |services| MeteredCalls::new(services, metrics.clone(), tracer.clone()));
    Ok(routes
        .layer(map_response(with_details))
        .layer(from_fn(with_deadline))
        .layer(AccessLayer::new(state.access, state.runtime.metrics().clone()))
        .layer(metered))
}

/// Adds details to errors that tonic gives for a service.
async fn with_details(response: Response) -> Response {
    with_size_details(with_decode_details(response))
}

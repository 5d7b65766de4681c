//! A collector of OpenTelemetry for a daemon of the bench: it takes spans and counts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// A collector that runs in this process as long as it does.
pub(crate) struct SpanCounter {
    /// Its address, as the settings of a daemon name it.
    pub(crate) endpoint: String,
    spans: Arc<AtomicUsize>,
}

struct CountingService(Arc<AtomicUsize>);

#[tonic::async_trait]
impl TraceService for CountingService {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.get_ref().resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        self.0.fetch_add(scopes.map(|scope| scope.spans.len()).sum(), Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl SpanCounter {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("failed to listen for spans")?;
        let address = listener.local_addr().context("failed to read the listening address")?;
        let spans = Arc::new(AtomicUsize::new(0));
        let service = TraceServiceServer::new(CountingService(spans.clone()));
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(Self { endpoint: format!("http://{address}"), spans })
    }

    /// How many spans have arrived.
    pub(crate) fn spans(&self) -> usize {
        self.spans.load(Ordering::Relaxed)
    }
}

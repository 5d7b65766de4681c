//! A collector of OpenTelemetry on the loopback: it takes spans over OTLP/gRPC, and keeps them.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value as OtlpValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

pub use opentelemetry_proto::tonic::trace::v1::Span;

/// No test waits longer for spans.
const SPAN_TIMEOUT: Duration = Duration::from_secs(60);

/// What a collector has received.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// The spans, in the order of their arrival.
    pub spans: Vec<Span>,
    /// The attributes of what they come from, those of the last message.
    pub resource: Value,
    /// The header `authorization` of the last message.
    pub authorization: Option<String>,
}

/// A collector that listens until it is dropped.
pub struct TraceCollector {
    /// Where it listens, without a scheme.
    pub address: String,
    received: watch::Sender<Received>,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Receiver(watch::Sender<Received>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let authorization = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        self.0.send_modify(|received| {
            received.authorization = authorization;
            for resource in request.into_inner().resource_spans {
                received.resource = attributes(&resource.resource.unwrap().attributes);
                received.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        });
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl TraceCollector {
    /// A collector without TLS.
    pub async fn start() -> Self {
        Self::serve(Server::builder()).await
    }

    /// A collector with this certificate and key, in PEM.
    pub async fn start_with_tls(certificate: &str, key: &str) -> Self {
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
        Self::serve(Server::builder().tls_config(tls).unwrap()).await
    }

    async fn serve(mut server: Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let received = watch::Sender::new(Received::default());
        let service = TraceServiceServer::new(Receiver(received.clone()));
        let server = server.add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { server.await.unwrap() });
        Self { address, received, server }
    }

    /// What it has received so far.
    pub fn received(&self) -> Received {
        self.received.borrow().clone()
    }

    /// Waits until its spans are like this.
    pub async fn until(&self, wanted: impl Fn(&[Span]) -> bool) -> Received {
        let mut changes = self.received.subscribe();
        let found = tokio::time::timeout(SPAN_TIMEOUT, changes.wait_for(|received| wanted(&received.spans))).await;
        match found {
            Ok(received) => received.unwrap().clone(),
            Err(_) => panic!("the spans are not there: {:#?}", self.received().spans),
        }
    }
}

impl Drop for TraceCollector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The attributes of a span as JSON.
pub fn span_attributes(span: &Span) -> Value {
    attributes(&span.attributes)
}

fn attributes(attributes: &[KeyValue]) -> Value {
    attributes.iter().map(|attribute| (attribute.key.clone(), value(attribute.value.as_ref()))).collect()
}

fn value(value: Option<&AnyValue>) -> Value {
    match value.and_then(|value| value.value.as_ref()) {
        Some(OtlpValue::StringValue(text)) => json!(text),
        Some(OtlpValue::BoolValue(value)) => json!(value),
        Some(OtlpValue::IntValue(value)) => json!(value),
        Some(OtlpValue::DoubleValue(value)) => json!(value),
        Some(OtlpValue::ArrayValue(array)) => array.values.iter().map(|item| self::value(Some(item))).collect(),
        other => panic!("{other:?} is no attribute of the daemon"),
    }
}

//! The services with their calls counted and timed, each by its method and by the code of its answer, refusals by caller, and told
//! as spans of traces.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use artel_metrics::{CallTimer, Metrics};
use artel_proto::FILE_DESCRIPTOR_SET;
use artel_task::CallerName;
use artel_traces::{CallSpan, Tracer};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::call_tracer::CallTracer;

/// Services whose calls are counted.
#[derive(Clone)]
pub(crate) struct MeteredCalls<S> {
    services: S,
    metrics: Arc<Metrics>,
    tracer: Option<CallTracer>,
}

impl<S> MeteredCalls<S> {
    /// Counts the calls of these services here, and gives their spans to the tracer if there is one.
    pub(crate) fn new(services: S, metrics: Arc<Metrics>, tracer: Option<Tracer>) -> Self {
        let methods = methods();
        metrics.calls.declare(methods.iter().map(String::as_str));
        let tracer = tracer.map(|tracer| CallTracer::new(tracer, &methods));
        Self { services, metrics, tracer }
    }
}

/// Every method that has figures of its own, such as `artel.v1.Tasks/Submit`.
fn methods() -> Vec<String> {
    let files = [FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET];
    let files = files.into_iter().map(|set| FileDescriptorSet::decode(set).expect("the build has encoded it"));
    let mut methods = Vec::new();
    for file in files.flat_map(|set| set.file) {
        let package = file.package().to_owned();
        for service in &file.service {
            let path =
                |method: &prost_types::MethodDescriptorProto| format!("{package}.{}/{}", service.name(), method.name());
            methods.extend(service.method.iter().map(path));
        }
    }
    methods
}

impl<S, Q, B> Service<Request<Q>> for MeteredCalls<S>
where
    S: Service<Request<Q>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<MeteredBody<B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.services.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Q>) -> Self::Future {
        let method = request.uri().path().trim_start_matches('/');
        let timer = self.metrics.calls.begin(method);
        let span = self.tracer.as_ref().and_then(|tracer| tracer.begin(method, request.headers()));
        if let Some(span) = &span {
            request.extensions_mut().insert(span.place().clone());
        }
        let mut call = MeteredCall { metrics: self.metrics.clone(), timer: Some(timer), span, caller: None };
        let response = self.services.call(request);
        async move {
            let response = response.await?;
            call.caller = response.extensions().get().cloned();
            // An answer without a body has its status in the headers.
            if let Some(status) = Status::from_header_map(response.headers()) {
                call.end(&status);
            }
            Ok(response.map(|body| MeteredBody { body, call }))
        }
        .boxed()
    }
}

/// A call that counts once: with the status of its answer, or as cancelled when it is dropped before.
struct MeteredCall {
    metrics: Arc<Metrics>,
    timer: Option<CallTimer>,
    span: Option<CallSpan>,
    caller: Option<CallerName>,
}

impl MeteredCall {
    fn end(&mut self, status: &Status) {
        let Some(timer) = self.timer.take() else { return };
        self.metrics.calls.ended(&timer, code_name(status.code()));
        // A stranger fills no traces.
        if let Some(span) = self.span.take().filter(|_| status.code() != Code::Unauthenticated) {
            span.end(code_name(status.code()));
        }
        if matches!(status.code(), Code::ResourceExhausted | Code::Unauthenticated | Code::PermissionDenied) {
            let details = status.get_error_details();
            let reason = details.error_info().map_or(code_name(status.code()), |info| info.reason.as_str());
            self.metrics.calls.refused(reason);
            if let Some(caller) = &self.caller {
                self.metrics.callers.refused(caller.as_str());
            }
        }
    }
}

impl Drop for MeteredCall {
    fn drop(&mut self) {
        self.end(&Status::cancelled(""));
    }
}

/// The body of an answer, which ends its call.
pub(crate) struct MeteredBody<B> {
    body: B,
    call: MeteredCall,
}

impl<B: HttpBody + Unpin> HttpBody for MeteredBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    self.call.end(&status);
                }
            }
            Some(Err(_)) => self.call.end(&Status::unknown("")),
            None => self.call.end(&Status::ok("")),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The name of a code, as the specification of gRPC writes it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use artel_proto::v1::ErrorReason;
    use tonic::body::Body;
    use tonic::codegen::Bytes;

    use super::*;
    use crate::status::status;

    /// The answer of a service to a call of this method.
    async fn call(metrics: &Arc<Metrics>, path: &str, answer: Status) {
        let services = tower::service_fn(move |_: Request<Body>| {
            let answer = answer.clone();
            async move {
                let mut response = answer.into_http::<Body>();
                response.extensions_mut().insert(CallerName::parse("ci").unwrap());
                Ok::<_, Infallible>(response)
            }
        });
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let Ok(_) = MeteredCalls::new(services, metrics.clone(), None).call(request).await;
    }

    #[tokio::test]
    async fn a_call_counts_by_method_and_code_and_a_refusal_by_its_reason() {
        let metrics = Metrics::new();
        let refusal = status(Code::ResourceExhausted, ErrorReason::TooManyTasks, "enough");
        call(&metrics, "/artel.v1.Tasks/Submit", refusal).await;
        call(&metrics, "/artel.v1.Tasks/Submit", Status::not_found("")).await;
        call(&metrics, "/made/up", Status::unimplemented("")).await;
        call(&metrics, "/made/up/too", Status::unauthenticated("")).await;
        let text = metrics.encode();
        for sample in [
            "artel_grpc_calls_total{method=\"artel.v1.Tasks/Submit\",code=\"RESOURCE_EXHAUSTED\"} 1\n",
            "artel_grpc_calls_total{method=\"artel.v1.Tasks/Submit\",code=\"NOT_FOUND\"} 1\n",
            "artel_grpc_calls_total{method=\"other\",code=\"UNIMPLEMENTED\"} 1\n",
            "artel_grpc_call_seconds_count{method=\"other\"} 2\n",
            "artel_calls_refused_total{reason=\"TOO_MANY_TASKS\"} 1\n",
            "artel_calls_refused_total{reason=\"UNAUTHENTICATED\"} 1\n",
            "artel_caller_calls_refused_total{caller=\"ci\"} 2\n",
            "artel_grpc_calls_open 0\n",
        ] {
            assert!(text.contains(sample), "no {sample} in\n{text}");
        }
        assert!(!text.contains("made"), "{text}");
    }

    #[tokio::test]
    async fn a_call_is_open_until_its_answer_has_ended_and_is_cancelled_if_it_is_dropped_before() {
        let metrics = Metrics::new();
        let services = tower::service_fn(|_: Request<Body>| async {
            Ok::<_, Infallible>(Response::new(Body::new(OneFrame(Some(Bytes::from_static(b"some"))))))
        });
        let mut services = MeteredCalls::new(services, metrics.clone(), None);
        let request = || Request::builder().uri("/artel.v1.Tasks/Watch").body(Body::empty()).unwrap();
        let Ok(response) = services.call(request()).await;
        assert!(metrics.encode().contains("artel_grpc_calls_open 1\n"));
        drop(response);
        let Ok(response) = services.call(request()).await;
        let mut body = std::pin::pin!(response.into_body());
        while std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await.is_some() {}
        let text = metrics.encode();
        for code in ["CANCELLED", "OK"] {
            let sample = format!("artel_grpc_calls_total{{method=\"artel.v1.Tasks/Watch\",code=\"{code}\"}} 1\n");
            assert!(text.contains(&sample), "no {sample} in\n{text}");
        }
        assert!(text.contains("artel_grpc_calls_open 0\n"), "{text}");
    }

    /// A body of one frame.
    struct OneFrame(Option<Bytes>);

    impl HttpBody for OneFrame {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
        }
    }
}

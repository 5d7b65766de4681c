//! Pages of plain HTTP with their requests counted and timed, each by its route and by the code of its answer, and those that begin
//! work told as spans of traces.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use artel_access::Route;
use artel_metrics::{HttpTimer, Metrics, OTHER};
use artel_traces::{CallSpan, Tracer};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tower::Layer;

use crate::call_tracer::caller;

/// The code of a request whose client went away before its answer had ended, as nginx counts it.
const CLIENT_CLOSED_CODE: u16 = 499;
const UNAUTHORIZED_CODE: u16 = 401;
/// What the paths of the routes begin with that clients of OpenAI's API call.
const WORK_PREFIX: &str = "/v1/";

/// Counts the requests of pages.
#[derive(Clone)]
pub struct MeteredPagesLayer(Arc<Metrics>, Option<Tracer>);

/// Pages whose requests are counted.
#[derive(Clone)]
pub struct MeteredPages<S> {
    inner: S,
    metrics: Arc<Metrics>,
    tracer: Option<Tracer>,
}

impl MeteredPagesLayer {
    /// Counts them here, and gives their spans to the tracer if there is one.
    pub fn new(metrics: Arc<Metrics>, tracer: Option<Tracer>) -> Self {
        Self(metrics, tracer)
    }
}

impl<S> Layer<S> for MeteredPagesLayer {
    type Service = MeteredPages<S>;

    fn layer(&self, inner: S) -> MeteredPages<S> {
        MeteredPages { inner, metrics: self.0.clone(), tracer: self.1.clone() }
    }
}

impl<S, Q, B> Service<Request<Q>> for MeteredPages<S>
where
    S: Service<Request<Q>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: HttpBody,
{
    type Response = Response<MeteredPage<B>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Q>) -> Self::Future {
        let found = Route::find(request.method().as_str(), request.uri().path());
        let route = found.map_or(OTHER, |route| route.path);
        let timer = Some(self.metrics.http.begin(route));
        // Those that begin a task or give work to a model.
        let work = found.filter(|route| route.method == "POST" && route.path.starts_with(WORK_PREFIX));
        let traced = work.zip(self.tracer.as_ref());
        let span = traced.and_then(|(route, tracer)| {
            tracer.call(&format!("{} {}", route.method, route.path), caller(request.headers()), true)
        });
        if let Some(span) = &span {
            request.extensions_mut().insert(span.place().clone());
        }
        let mut counted =
            CountedRequest { metrics: self.metrics.clone(), timer, span, route, code: CLIENT_CLOSED_CODE };
        let response = self.inner.call(request);
        async move {
            let response = response.await?;
            counted.code = response.status().as_u16();
            // An empty body may never be asked for a frame.
            if response.body().is_end_stream() {
                counted.end(counted.code);
            }
            Ok(response.map(|body| MeteredPage { body, counted }))
        }
        .boxed()
    }
}

/// A request that counts once.
struct CountedRequest {
    metrics: Arc<Metrics>,
    timer: Option<HttpTimer>,
    span: Option<CallSpan>,
    route: &'static str,
    code: u16,
}

impl CountedRequest {
    fn end(&mut self, code: u16) {
        if let Some(timer) = self.timer.take() {
            self.metrics.http.ended(&timer, code);
        }
        // A stranger fills no traces.
        if let Some(span) = self.span.take().filter(|_| code != UNAUTHORIZED_CODE) {
            span.end_http(self.route, code);
        }
    }
}

impl Drop for CountedRequest {
    fn drop(&mut self) {
        self.end(CLIENT_CLOSED_CODE);
    }
}

/// The body of an answer, which ends its request.
pub struct MeteredPage<B> {
    body: B,
    counted: CountedRequest,
}

impl<B: HttpBody + Unpin> HttpBody for MeteredPage<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // A body of known length is not asked again after its last frame.
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            let code = self.counted.code;
            self.counted.end(code);
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

#[cfg(test)]
mod tests {
    use tonic::body::Body;

    use super::*;

    #[tokio::test]
    async fn a_request_counts_by_route_and_code_and_one_that_is_left_as_closed() {
        let metrics = Metrics::new();
        let pages = tower::service_fn(|_: Request<()>| async {
            Ok::<_, Infallible>(Response::new(Body::new("a page".to_owned())))
        });
        let mut pages = MeteredPagesLayer::new(metrics.clone(), None).layer(pages);
        let request = |path: &str| Request::builder().uri(path.to_owned()).body(()).unwrap();
        for path in ["/v1/models/shop", "/made/up"] {
            let Ok(response) = pages.call(request(path)).await;
            let mut body = std::pin::pin!(response.into_body());
            while std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await.is_some() {}
        }
        let Ok(response) = pages.call(request("/healthz")).await;
        assert!(metrics.encode().contains("artel_http_requests_open 1\n"));
        drop(response);
        let text = metrics.encode();
        for sample in [
            "artel_http_requests_total{route=\"/v1/models/{id}\",code=\"200\"} 1\n",
            "artel_http_requests_total{route=\"other\",code=\"200\"} 1\n",
            "artel_http_requests_total{route=\"/healthz\",code=\"499\"} 1\n",
            "artel_http_requests_open 0\n",
        ] {
            assert!(text.contains(sample), "no {sample} in\n{text}");
        }
        assert!(!text.contains("made"), "{text}");
    }
}

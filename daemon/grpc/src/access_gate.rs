//! The gate before all services: it knows the caller of each call, and lets through what that caller may do.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use artel_accept::{OpenCall, Peer};
use artel_access::{Access, AccessRefusal, AdmittedCall, Credentials};
use artel_metrics::Metrics;
use futures::FutureExt as _;
use futures::future::{self, BoxFuture};
use http_body::Body as HttpBody;
use tonic::body::Body;
use tonic::codegen::http::header::{AUTHORIZATION, CONTENT_TYPE};
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Bytes, Service, StdError};
use tower::Layer;

use crate::audit::AuditedCall;
use crate::ending_body::EndingBody;
use crate::refused_call;

/// A service behind the gate: gRPC methods and HTTP routes alike.
///
/// It reads the [`Peer`] from the extensions of a request; without one, nothing is known of the peer. It takes the header
/// `authorization` away and puts the [`Caller`](artel_access::Caller) into the extensions; what is behind it sees no token. The
/// response has the name of the caller in its extensions, for what is before it.
#[derive(Clone)]
pub struct AccessGate<S> {
    inner: S,
    access: Access,
    metrics: Arc<Metrics>,
}

/// Puts a service behind the gate.
#[derive(Clone)]
pub struct AccessLayer {
    access: Access,
    metrics: Arc<Metrics>,
}

impl AccessLayer {
    /// A gate with these tokens, which counts here what it refuses over plain HTTP.
    pub fn new(access: Access, metrics: Arc<Metrics>) -> Self {
        Self { access, metrics }
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = AccessGate<S>;

    fn layer(&self, inner: S) -> AccessGate<S> {
        AccessGate::new(inner, self.access.clone(), self.metrics.clone())
    }
}

impl<S> AccessGate<S> {
    /// The service behind a gate.
    pub fn new(inner: S, access: Access, metrics: Arc<Metrics>) -> Self {
        Self { inner, access, metrics }
    }

    fn admit<B>(&self, request: &Request<B>) -> Result<AdmittedCall, AccessRefusal> {
        let peer = request.extensions().get::<Peer>();
        let mut headers = request.headers().get_all(AUTHORIZATION).iter();
        let authorization = headers.next().map(|value| value.as_bytes());
        // Of several, another program may see another one.
        let authorization = if headers.next().is_some() { Some(&b""[..]) } else { authorization };
        self.access.admit(request.method().as_str(), request.uri().path(), Credentials { peer, authorization })
    }
}

impl<S, B, R> Service<Request<B>> for AccessGate<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    S::Future: Send + 'static,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<StdError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let is_grpc = refused_call::is_grpc(request.headers());
        let AdmittedCall { route, caller, grant } = match self.admit(&request) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                if !is_grpc {
                    // Of gRPC, all calls are counted with the code of their answer.
                    self.metrics.calls.refused(refused_call::reason_text(&refusal));
                }
                let response = refused_call::response(&refusal, is_grpc);
                return future::ready(Ok(response)).boxed();
            }
        };
        request.headers_mut().remove(AUTHORIZATION);
        let audited = route.is_audited.then(|| {
            let audited = AuditedCall::begin(caller.as_ref(), request.extensions().get::<Peer>(), route);
            request.extensions_mut().insert(audited.object());
            audited
        });
        let name = caller.as_ref().map(|caller| caller.name.clone());
        if let Some(caller) = caller {
            if let Some(call) = request.extensions().get::<OpenCall>() {
                call.admit();
            }
            // What is behind the gate may keep the extensions for longer than the call.
            request.extensions_mut().remove::<OpenCall>();
            request.extensions_mut().insert(caller);
        }
        let response = self.inner.call(request);
        async move {
            let mut response = response.await?.map(Body::new);
            if let Some(name) = name {
                response.extensions_mut().insert(name);
            }
            if let Some(audited) = audited {
                audited.end(&response);
            }
            // A whole answer is sent at once, and ends by itself.
            let is_open = is_grpc || is_event_stream(&response);
            let ends = route.is_stream && is_open && grant.can_end();
            Ok(if ends { response.map(|body| EndingBody::wrap(body, grant, is_grpc)) } else { response })
        }
        .boxed()
    }
}

fn is_event_stream(response: &Response<Body>) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

#[cfg(test)]
mod tests;

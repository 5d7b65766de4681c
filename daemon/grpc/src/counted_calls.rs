//! The services as one connection sees them: its calls are counted.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use artel_accept::{ConnectionSlot, OpenCall};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Bytes, Service};
use tonic::service::Routes;
use tower::util::MapResponse;

type AddDetails = fn(Response<Body>) -> Response<Body>;
/// All services, with details added to the errors that do not come from them.
pub(crate) type Services = MapResponse<MapResponse<Routes, AddDetails>, AddDetails>;

/// The services for one connection. A call is open until its response was sent or dropped.
#[derive(Clone)]
pub(crate) struct CountedCalls {
    services: Services,
    slot: Arc<ConnectionSlot>,
}

impl CountedCalls {
    pub(crate) fn new(services: Services, slot: Arc<ConnectionSlot>) -> Self {
        Self { services, slot }
    }
}

impl Service<Request<Body>> for CountedCalls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.services, cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = self.slot.begin_call();
        let response = self.services.call(request);
        let counted = |response: Response<Body>| response.map(|body| Body::new(CountedBody { body, _call: call }));
        response.map(|response| response.map(counted)).boxed()
    }
}

/// The body of a response, with the call that it belongs to.
struct CountedBody {
    body: Body,
    _call: OpenCall,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

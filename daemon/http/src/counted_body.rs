//! The body of a response, and what is in use until it was sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use artel_accept::OpenCall;
use axum::Error;
use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

/// The body of a response, with the call that it belongs to and its share of the requests. They end when it was sent or dropped.
pub(crate) struct CountedBody {
    body: Body,
    _call: OpenCall,
    _request: Option<OwnedSemaphorePermit>,
}

impl CountedBody {
    pub(crate) fn new(body: Body, call: OpenCall, request: Option<OwnedSemaphorePermit>) -> Self {
        Self { body, _call: call, _request: request }
    }
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

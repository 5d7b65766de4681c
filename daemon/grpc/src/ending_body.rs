//! The body of a response that ends with the right to it.

use std::pin::Pin;
use std::task::{Context, Poll};

use artel_access::{AccessRefusal, CallGrant};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::HeaderMap;

use crate::refused_call::{grpc_status, stream_event};

/// A stream that ends with an error when the token of its caller is revoked or expires.
pub(crate) struct EndingBody {
    body: Body,
    /// `None` once it has resolved.
    ended: Option<BoxFuture<'static, AccessRefusal>>,
    is_grpc: bool,
}

impl EndingBody {
    pub(crate) fn wrap(body: Body, grant: CallGrant, is_grpc: bool) -> Body {
        Body::new(Self { body, ended: Some(grant.ended().boxed()), is_grpc })
    }
}

impl HttpBody for EndingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(ended) = &mut self.ended else { return Poll::Ready(None) };
        if let Poll::Ready(refusal) = ended.poll_unpin(cx) {
            (self.ended, self.body) = (None, Body::default());
            if !self.is_grpc {
                return Poll::Ready(Some(Ok(Frame::data(stream_event(&refusal).into()))));
            }
            let mut trailers = HeaderMap::new();
            grpc_status(&refusal).add_header(&mut trailers)?;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.ended.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

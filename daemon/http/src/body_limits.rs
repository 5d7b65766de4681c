//! The limits of a request's body, for routes that take one as a whole.
//!
//! gRPC has limits of its own: those of a message.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::refusal::Refusal;

/// As much as a message of gRPC may have: a catalog of many files, or a text of 1 MiB in JSON.
const MAX_BODY_BYTES: usize = 4 << 20;
/// The largest body takes a third of this at a megabit per second.
const BODY_TIMEOUT: Duration = Duration::from_secs(100);

/// Routes whose requests have a body of a few mebibytes that was read as a whole, within bounded time. Others are refused.
/// What decides about a request by its headers alone belongs around these routes.
pub fn with_body_limits(routes: Router) -> Router {
    routes.layer(from_fn(read_whole))
}

async fn read_whole(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match read(body, MAX_BODY_BYTES, BODY_TIMEOUT).await {
        Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Err(refusal) => refusal.to_page(),
    }
}

async fn read(body: Body, limit: usize, timeout: Duration) -> Result<Bytes, Refusal> {
    // Its declared length is enough to refuse it.
    if body.size_hint().lower() > limit as u64 {
        return Err(Refusal::BodyTooLarge { limit });
    }
    match tokio::time::timeout(timeout, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::BodyTooLarge { limit }),
        Ok(Err(_)) => Err(Refusal::BodyCutOff),
        Err(_) => Err(Refusal::BodyTimeout(timeout)),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{StreamExt as _, stream};

    use super::*;

    fn chunks(count: usize) -> impl futures::Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        stream::repeat_with(|| Ok(Bytes::from_static(b"12345678"))).take(count)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_body_within_the_limits_is_read_whole() {
        assert_eq!(read(Body::from("12345678"), 8, SECOND).await.unwrap(), "12345678");
        assert_eq!(read(Body::from_stream(chunks(2)), 16, SECOND).await.unwrap(), "1234567812345678");
        assert_eq!(read(Body::empty(), 0, SECOND).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_refused_with_or_without_a_length() {
        let too_large = Err(Refusal::BodyTooLarge { limit: 7 });
        assert_eq!(read(Body::from("12345678"), 7, SECOND).await, too_large);
        assert_eq!(read(Body::from_stream(chunks(usize::MAX)), 7, SECOND).await, too_large);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_not_sent_in_time_is_refused() {
        let trickle = Body::from_stream(chunks(1).chain(stream::pending()));
        assert_eq!(read(trickle, 100, SECOND).await, Err(Refusal::BodyTimeout(SECOND)));
    }

    #[tokio::test]
    async fn a_body_that_ends_too_early_is_refused() {
        let broken = stream::iter([Ok(Bytes::from_static(b"1")), Err(std::io::Error::other("closed"))]);
        assert_eq!(read(Body::from_stream(broken), 100, SECOND).await, Err(Refusal::BodyCutOff));
    }
}

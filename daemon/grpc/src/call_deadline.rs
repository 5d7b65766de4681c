//! The deadline that a client gives its call.

use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use tonic::Status;

/// The header with the time that is left for a call.
const TIMEOUT_HEADER: &str = "grpc-timeout";
/// The longest number in it, by the protocol.
const MAX_NUMBER_CHARS: usize = 8;

/// Ends a call that has no response in time: its client does not wait any more. A stream may go on once it has begun.
pub(crate) async fn with_deadline(request: Request, next: Next) -> Response {
    let Some(timeout) = timeout(request.headers()) else { return next.run(request).await };
    let response = tokio::time::timeout(timeout, next.run(request)).await;
    response.unwrap_or_else(|_| Status::deadline_exceeded("the deadline of the call is over").into_http())
}

/// The time that is left, if the header is there and well-formed: eight digits at most, and a unit.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT_HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > MAX_NUMBER_CHARS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn;
    use axum::routing::post;
    use tonic::Code;
    use tower::ServiceExt as _;

    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    fn parsed(text: &str) -> Option<Duration> {
        timeout(&HeaderMap::from_iter([(TIMEOUT_HEADER.try_into().unwrap(), text.try_into().unwrap())]))
    }

    #[test]
    fn the_header_is_a_number_and_a_unit() {
        assert_eq!(parsed("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parsed("99999999m"), Some(Duration::from_millis(99_999_999)));
        assert_eq!(parsed("5u"), Some(Duration::from_micros(5)));
        for malformed in ["", "S", "5", "123456789S", "-1S", "+1S", "1 S", "1s"] {
            assert_eq!(parsed(malformed), None, "{malformed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_with_its_deadline_and_not_without_one() {
        let permits = Arc::new(Semaphore::new(0));
        let gate = permits.clone();
        let slow = post(move || async move {
            let _permit = gate.acquire_owned().await;
            "done"
        });
        let routes = Router::new().route("/", slow).layer(from_fn(with_deadline));
        let call = async |header: Option<&str>| {
            let request = Request::post("/");
            let request = header.into_iter().fold(request, |request, text| request.header(TIMEOUT_HEADER, text));
            routes.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
        };
        // The time is paused: it goes on when everything waits.
        let status = Status::from_header_map(call(Some("59S")).await.headers()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        permits.add_permits(1);
        assert!(Status::from_header_map(call(Some("59S")).await.headers()).is_none());
        assert!(Status::from_header_map(call(None).await.headers()).is_none());
    }
}

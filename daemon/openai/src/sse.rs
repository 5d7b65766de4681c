//! Server-sent events: a response whose body grows, and never stays silent for long.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Response};
use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

/// Keeps a proxy such as nginx from collecting the body.
const NO_BUFFERING_HEADER: HeaderName = HeaderName::from_static("x-accel-buffering");
/// How long nothing is sent at most: some proxies close a connection after 15 s without data.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);

/// Writes the items of an answer as lines of a stream.
pub(crate) trait StreamWriter<T>: Send + 'static {
    /// The lines of an item; none if there is nothing to tell.
    fn write(&mut self, item: T) -> String;

    /// The lines after [`IDLE_INTERVAL`] without any.
    fn idle(&mut self) -> String {
        comment("still computing")
    }

    /// The lines before the first item.
    fn begin(&mut self) -> String {
        String::new()
    }

    /// The lines after the last item.
    fn end(&mut self) -> String {
        String::new()
    }
}

/// An event with data alone.
pub(crate) fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// A line that clients skip.
pub(crate) fn comment(text: &str) -> String {
    format!(": {text}\n\n")
}

/// A response that streams these items.
pub(crate) fn response<T: Send + 'static>(
    items: impl Stream<Item = T> + Send + 'static,
    writer: impl StreamWriter<T>,
) -> Response<Body> {
    let begun =
        EventBody { items: Some(items.boxed()), writer, next_idle: Instant::now() + IDLE_INTERVAL, is_begun: false };
    let chunks = stream::unfold(begun, |mut body| async move {
        let lines = body.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(lines)), body))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(NO_BUFFERING_HEADER, HeaderValue::from_static("no"));
    response
}

struct EventBody<T, W> {
    /// `None` after the last one.
    items: Option<BoxStream<'static, T>>,
    writer: W,
    next_idle: Instant,
    is_begun: bool,
}

impl<T: Send + 'static, W: StreamWriter<T>> EventBody<T, W> {
    /// More lines; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            let lines = self.lines().await?;
            if !lines.is_empty() {
                self.next_idle = Instant::now() + IDLE_INTERVAL;
                return Some(lines);
            }
        }
    }

    async fn lines(&mut self) -> Option<String> {
        if !std::mem::replace(&mut self.is_begun, true) {
            return Some(self.writer.begin());
        }
        let items = self.items.as_mut()?;
        match timeout_at(self.next_idle, items.next()).await {
            Ok(Some(item)) => Some(self.writer.write(item)),
            Ok(None) => {
                self.items = None;
                Some(self.writer.end())
            }
            Err(_) => Some(self.writer.idle()),
        }
    }
}

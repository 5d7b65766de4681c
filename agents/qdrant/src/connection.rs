//! The connection to a server: one call with its deadline, its key and its errors.

use std::error::Error as StdError;
use std::future::Future;
use std::time::Duration;

use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::points_client::PointsClient;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status, TimeoutExpired};

use crate::error::Error;
use crate::operation::Operation;
use crate::settings::QdrantSettings;
use crate::shape::CollectionShape;

/// The client of the calls that concern collections.
pub(crate) type Collections = CollectionsClient<Channel>;
/// The client of the calls that concern points.
pub(crate) type Points = PointsClient<Channel>;

/// The header of the key.
const KEY_HEADER: &str = "api-key";
/// A connection that is not made in this time is given up, or in half of the time of a call if that is less.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The interval of HTTP/2 pings, and the time to wait for their answer: a connection that a router has forgotten is noticed
/// before the next call needs it.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// The largest answer: a page of 1,000 ids has some 50 kB, and a search for 10,000 points 500 kB.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// The most of a reason that is shown.
const MAX_REASON_CHARS: usize = 300;

/// The connection to a server, and what a call of it needs.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    channel: Channel,
    settings: QdrantSettings,
}

impl Connection {
    /// Sets it up; it is made with the first call.
    pub(crate) fn new(settings: QdrantSettings) -> Result<Self, Error> {
        let tls_error = |error: tonic::transport::Error| Error::Tls {
            address: settings.address.clone(),
            cause: with_causes(&error),
        };
        let mut endpoint = Endpoint::from_shared(settings.address.to_string())
            .expect("an address is a URI")
            .connect_timeout(MAX_CONNECT_TIMEOUT.min(settings.timeout / 2))
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_INTERVAL)
            .keep_alive_while_idle(true);
        if settings.address.is_encrypted() {
            endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(tls_error)?;
        }
        Ok(Self { channel: endpoint.connect_lazy(), settings })
    }

    pub(crate) fn settings(&self) -> &QdrantSettings {
        &self.settings
    }

    /// A call that concerns collections.
    pub(crate) async fn collections<M, A, F>(
        &self,
        operation: Operation,
        message: M,
        send: impl FnOnce(Collections, Request<M>) -> F,
    ) -> Result<A, Error>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let client = CollectionsClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        self.answer(operation, send(client, self.request(message))).await
    }

    /// A call that concerns points.
    pub(crate) async fn points<M, A, F>(
        &self,
        operation: Operation,
        message: M,
        send: impl FnOnce(Points, Request<M>) -> F,
    ) -> Result<A, Error>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let client = PointsClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        self.answer(operation, send(client, self.request(message))).await
    }

    /// A message with the key, and with the deadline, so that the server does not work for nothing.
    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.set_timeout(self.settings.timeout);
        if let Some(key) = &self.settings.api_key {
            request.metadata_mut().insert(KEY_HEADER, key.header());
        }
        request
    }

    /// Waits for an answer. The timeouts of tonic cover neither the way to a connection nor an answer that stops midway.
    async fn answer<A>(
        &self,
        operation: Operation,
        sent: impl Future<Output = Result<Response<A>, Status>>,
    ) -> Result<A, Error> {
        match tokio::time::timeout(self.settings.timeout, sent).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.failed(operation, &status)),
            Err(_) => Err(self.timed_out(operation)),
        }
    }

    /// A status of gRPC as an error. `PermissionDenied` is said to a key that may do less, and by older servers to a wrong one.
    fn failed(&self, operation: Operation, status: &Status) -> Error {
        let QdrantSettings { address, collection, api_key, .. } = self.settings.clone();
        let reason = self.shown(status.message());
        match (status.code(), status.source()) {
            (Code::DeadlineExceeded, _) | (Code::Cancelled, None) => self.timed_out(operation),
            (_, Some(cause)) if is_timeout(cause) => self.timed_out(operation),
            // What has a cause was not sent by the server: there is no connection, or it broke.
            (_, Some(cause)) => Error::Unreachable { address, cause: self.shown(&with_causes(cause)) },
            (Code::Unauthenticated | Code::PermissionDenied, None) => {
                Error::Unauthenticated { address, collection, operation, reason, has_key: api_key.is_some() }
            }
            (Code::Unavailable | Code::ResourceExhausted | Code::Aborted, None) => {
                Error::Busy { address, collection, operation, reason }
            }
            (Code::NotFound, None) => Error::NoCollection { address, collection, reason },
            (_, None) => Error::Refused { address, collection, operation, reason },
        }
    }

    /// The deadline of a call has passed, here or there.
    pub(crate) fn timed_out(&self, operation: Operation) -> Error {
        let QdrantSettings { address, collection, timeout, .. } = self.settings.clone();
        Error::Timeout { address, collection, operation, after: timeout }
    }

    /// An answer of the server that says no.
    pub(crate) fn refused(&self, operation: Operation, reason: &str) -> Error {
        let QdrantSettings { address, collection, .. } = self.settings.clone();
        Error::Refused { address, collection, operation, reason: self.shown(reason) }
    }

    /// The collection is of another form.
    pub(crate) fn differs(&self, found: CollectionShape, needed: CollectionShape) -> Error {
        let QdrantSettings { address, collection, .. } = self.settings.clone();
        Error::CollectionDiffers { address, collection, found, needed }
    }

    /// There are more points than are listed.
    pub(crate) fn too_many_points(&self, knowledge: &str, limit: usize) -> Error {
        let QdrantSettings { address, collection, .. } = self.settings.clone();
        Error::TooManyPoints { address, collection, knowledge: knowledge.to_owned(), limit }
    }

    /// A text of others in one line, not too long, without the key.
    fn shown(&self, text: &str) -> String {
        let text = self.settings.api_key.as_ref().map_or_else(|| text.to_owned(), |key| key.hide_in(text));
        let text: String = text.chars().take(MAX_REASON_CHARS).collect();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() { "it gives no reason".to_owned() } else { text }
    }
}

/// Whether tonic has watched the deadline, which it does too once there is a connection.
fn is_timeout(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<TimeoutExpired>())
}

/// An error with its causes; some repeat the text of theirs.
fn with_causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = text + separator + &cause;
        }
    }
    text
}

fn causes<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let settings = QdrantSettings {
            address: "http://127.0.0.1:6334".parse().unwrap(),
            collection: "artel".parse().unwrap(),
            api_key: Some("s3cret".parse().unwrap()),
            timeout: Duration::from_secs(1),
        };
        Connection::new(settings).unwrap()
    }

    #[tokio::test]
    async fn a_status_is_an_error_that_passes_or_not() {
        let connection = connection();
        for (code, name, is_passing) in [
            (Code::Unavailable, "Busy", true),
            (Code::ResourceExhausted, "Busy", true),
            (Code::Aborted, "Busy", true),
            (Code::DeadlineExceeded, "Timeout", true),
            (Code::Cancelled, "Timeout", true),
            (Code::Unauthenticated, "Unauthenticated", false),
            (Code::PermissionDenied, "Unauthenticated", false),
            (Code::NotFound, "NoCollection", false),
            (Code::InvalidArgument, "Refused", false),
            (Code::Internal, "Refused", false),
            (Code::Unimplemented, "Refused", false),
        ] {
            let error = connection.failed(Operation::Search, &Status::new(code, "it quotes s3cret"));
            assert!(format!("{error:?}").starts_with(name), "{code:?}: {error:?}");
            assert_eq!(error.is_passing(), is_passing, "{code:?}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_reason_is_one_short_line() {
        let connection = connection();
        assert_eq!(connection.shown("one\n  two\t"), "one two");
        assert_eq!(connection.shown(" "), "it gives no reason");
        assert_eq!(connection.shown(&"x".repeat(10_000)).len(), MAX_REASON_CHARS);
    }
}

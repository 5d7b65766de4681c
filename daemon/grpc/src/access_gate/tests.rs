//! The table of routes against the protos, and what the gate answers.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::time::Duration;

use artel_access::{Caller, NewToken, ROUTES, RouteNeed, ScopeSet, TokenLimits};
use artel_proto::FILE_DESCRIPTOR_SET;
use artel_task::{CallerName, Clock};
use http_body::Frame;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tempfile::TempDir;
use tonic::codegen::http::StatusCode;
use tonic::codegen::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use tonic::{Code, Status};
use tower::service_fn;

use super::*;

/// Every method that the server has, and whether it streams its answers.
fn methods() -> BTreeSet<(String, bool)> {
    let sets = [
        FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let files = sets.into_iter().flat_map(|set| FileDescriptorSet::decode(set).unwrap().file);
    let methods = files.flat_map(|file| {
        let package = file.package().to_owned();
        file.service.into_iter().flat_map(move |service| {
            let package = package.clone();
            let name = service.name().to_owned();
            service
                .method
                .into_iter()
                .map(move |method| (format!("/{package}.{name}/{}", method.name()), method.server_streaming()))
        })
    });
    methods.collect()
}

/// What the paths of plain HTTP begin with to which clients send work.
const HTTP_PREFIX: &str = "/v1/";

#[test]
fn every_method_has_a_scope_and_every_entry_a_method() {
    let table = ROUTES.iter().filter(|route| route.method == "POST" && !route.path.starts_with(HTTP_PREFIX));
    let table: BTreeSet<(String, bool)> = table.map(|route| (route.path.to_owned(), route.is_stream)).collect();
    let methods = methods();
    let without: Vec<_> = methods.difference(&table).collect();
    assert!(without.is_empty(), "these methods lack an entry in the table of routes: {without:?}");
    let stale: Vec<_> = table.difference(&methods).collect();
    assert!(stale.is_empty(), "these entries of the table are no methods: {stale:?}");
    assert!(methods.len() > 20);
}

struct GateFixture {
    access: Access,
    metrics: Arc<Metrics>,
    _dir: TempDir,
}

fn world() -> GateFixture {
    let dir = tempfile::tempdir().unwrap();
    let access = Access::open(dir.path(), Clock::default()).unwrap();
    GateFixture { access, metrics: Metrics::new(), _dir: dir }
}

impl GateFixture {
    fn header(&self, scopes: &str, limits: TokenLimits) -> String {
        let name = CallerName::parse("ci").unwrap();
        let new = NewToken { name, scopes: ScopeSet::parse(scopes.split(',')).unwrap(), lifetime: None, limits };
        format!("Bearer {}", self.access.tokens().create(new).unwrap().1.expose())
    }

    /// What comes back, and the caller and the header that the service behind the gate saw.
    async fn call(
        &self,
        path: &str,
        kind: &str,
        headers: &[&str],
    ) -> (Response<Body>, Option<(Option<CallerName>, bool)>) {
        let (seen, sees) = std::sync::mpsc::channel();
        let service = service_fn(move |request: Request<()>| {
            let caller = request.extensions().get::<Caller>().map(|caller| caller.name.clone());
            seen.send((caller, request.headers().contains_key(AUTHORIZATION))).unwrap();
            // A stream that does not end by itself.
            let body = Body::new(http_body_of_stream());
            future::ready(Ok::<_, Infallible>(Response::new(body)))
        });
        let method = if kind.starts_with("application/grpc") { "POST" } else { "GET" };
        let mut request = Request::builder().method(method).uri(path).header("content-type", kind);
        for header in headers {
            request = request.header(AUTHORIZATION, *header);
        }
        let mut gate = AccessGate::new(service, self.access.clone(), self.metrics.clone());
        let response = gate.call(request.body(()).unwrap()).await.unwrap();
        (response, sees.try_recv().ok())
    }
}

/// A body that has nothing to send and does not end.
fn http_body_of_stream() -> impl HttpBody<Data = Bytes, Error = Status> + Send + 'static {
    struct Endless;
    impl HttpBody for Endless {
        type Data = Bytes;
        type Error = Status;
        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
            Poll::Pending
        }
    }
    Endless
}

const GRPC: &str = "application/grpc";
const WATCH: &str = "/artel.v1.Tasks/Watch";

fn code(response: &Response<Body>) -> Code {
    Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
}

#[tokio::test]
async fn a_refused_grpc_call_is_a_status_in_the_headers() {
    let world = world();
    let reader = world.header("read", TokenLimits::default());
    for (headers, path, expected) in [
        (vec![], WATCH, Code::Unauthenticated),
        (vec!["Bearer artel_wrong"], WATCH, Code::Unauthenticated),
        (vec![reader.as_str(), "Bearer artel_wrong"], WATCH, Code::Unauthenticated),
        (vec![reader.as_str()], "/artel.v1.Engines/Load", Code::PermissionDenied),
        (vec![reader.as_str()], "/artel.v1.Engines/Explode", Code::Unimplemented),
    ] {
        let (response, seen) = world.call(path, GRPC, &headers).await;
        assert_eq!((response.status(), code(&response), seen), (StatusCode::OK, expected, None), "{path} {headers:?}");
        assert_eq!(response.headers()["content-type"], GRPC);
        assert!(response.body().is_end_stream());
    }
    let (response, seen) = world.call(WATCH, GRPC, &[&reader]).await;
    let caller = CallerName::parse("ci").ok();
    assert_eq!((code(&response), seen), (Code::Ok, Some((caller, false))), "what is behind the gate sees no token");
    let (response, seen) = world.call("/grpc.health.v1.Health/Check", GRPC, &["Bearer artel_wrong"]).await;
    assert_eq!((code(&response), seen), (Code::Ok, Some((None, false))));
}

#[tokio::test]
async fn a_refused_http_request_has_its_own_code_and_names_the_scope() {
    let world = world();
    let submitter = world.header("submit", TokenLimits::default());
    let (response, seen) = world.call("/metrics", "", &[]).await;
    assert_eq!((response.status(), seen), (StatusCode::UNAUTHORIZED, None));
    assert!(response.headers()[WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
    assert_eq!(world.call("/metrics", "", &[&submitter]).await.0.status(), StatusCode::FORBIDDEN);
    assert_eq!(world.call("/nothing", "", &[&submitter]).await.0.status(), StatusCode::NOT_FOUND);
    assert_eq!(world.call("/nothing", "", &[]).await.0.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(world.call("/healthz", "", &[]).await.0.status(), StatusCode::OK);
    let counted = world.metrics.encode();
    for sample in ["{reason=\"UNAUTHENTICATED\"} 2\n", "{reason=\"MISSING_SCOPE\"} 1\n"] {
        assert!(counted.contains(&format!("artel_calls_refused_total{sample}")), "{counted}");
    }
}

#[tokio::test(start_paused = true)]
async fn limits_say_when_to_come_back() {
    use tonic_types::StatusExt as _;
    let world = world();
    let (calls_per_minute, streams) = (NonZeroU32::new(2), NonZeroU32::new(1));
    let limits = TokenLimits { calls_per_minute, streams, ..TokenLimits::default() };
    let reader = world.header("read", limits);
    let (stream, _) = world.call(WATCH, GRPC, &[&reader]).await;
    let (refused, _) = world.call(WATCH, GRPC, &[&reader]).await;
    assert_eq!(code(&refused), Code::ResourceExhausted, "its stream is open");
    drop(stream);
    let (refused, _) = world.call(WATCH, GRPC, &[&reader]).await;
    let status = Status::from_header_map(refused.headers()).unwrap();
    assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_secs(30)));
    let (refused, _) = world.call("/metrics", "", &[&reader]).await;
    let delay = refused.headers()[RETRY_AFTER].to_str().unwrap();
    assert_eq!((refused.status(), delay), (StatusCode::TOO_MANY_REQUESTS, "30"));
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let world = world();
    let reader = world.header("read", TokenLimits::default());
    let (response, _) = world.call(WATCH, GRPC, &[&reader]).await;
    let mut body = response.into_body();
    let mut frame = std::pin::pin!(future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)));
    assert!(future::poll_immediate(&mut frame).await.is_none(), "the stream is open");
    world.access.tokens().revoke("ci").unwrap();
    let trailers = frame.await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(Status::from_header_map(&trailers).unwrap().code(), Code::Unauthenticated);
    let end = future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
    assert!(end.is_none() && body.is_end_stream());
}

#[tokio::test]
async fn a_whole_answer_outlives_its_token_and_a_stream_of_events_ends_with_one() {
    let world = world();
    for (kind, is_ended) in [("application/json", false), ("text/event-stream", true)] {
        let submitter = world.header("submit", TokenLimits::default());
        let service = service_fn(move |_: Request<()>| {
            let response = Response::builder().header("content-type", kind).body(Body::new("{}".to_owned()));
            future::ready(Ok::<_, Infallible>(response.unwrap()))
        });
        let request = Request::builder().method("POST").uri("/v1/chat/completions").header(AUTHORIZATION, &submitter);
        let mut gate = AccessGate::new(service, world.access.clone(), world.metrics.clone());
        let response = gate.call(request.body(()).unwrap()).await.unwrap();
        world.access.tokens().revoke("ci").unwrap();
        let mut body = response.into_body();
        let frame = future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.unwrap().unwrap();
        let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
        assert_eq!((text == "{}", text.contains("invalid_api_key")), (!is_ended, is_ended), "{text}");
    }
}

#[test]
fn what_the_audit_log_tells_changes_something() {
    let audited: Vec<&str> = ROUTES.iter().filter(|route| route.is_audited).map(|route| route.path).collect();
    assert!(audited.iter().all(|path| !path.contains("/List") && !path.contains("/Get")), "{audited:?}");
    assert!(ROUTES.iter().all(|route| !route.is_audited || route.need != RouteNeed::Nothing));
}

//! What every request passes before a route sees it, and the way to its route.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use artel_accept::{LogThrottle, OpenCall, Peer};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response, Uri, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer as _, ServiceExt as _};

use crate::host_rules::HostRules;
use crate::origin_rules::{self, OriginRules, PageOrigin};
use crate::pages::{HEALTH_PATH, READY_PATH};
use crate::refusal::{Dialect, Refusal};

/// The most bytes of a request's headers: a path, a deadline, a token and some metadata.
pub(crate) const MAX_HEADER_BYTES: u32 = 16 << 10;
/// What HTTP/2 counts for each header beside its name and value (RFC 9113, 6.5.2).
const HEADER_ENTRY_BYTES: usize = 32;
/// Paths that are answered however many requests there are, so that a monitor does not take the daemon for dead.
const UNCOUNTED_PATHS: [&str; 3] = [HEALTH_PATH, READY_PATH, "/grpc.health.v1.Health/Check"];
/// The longest time for one of these.
const UNCOUNTED_TIMEOUT: Duration = Duration::from_secs(10);
/// The stream that every client may open. It has places of its own, so that strangers take none of the others.
const HEALTH_STREAM_PATH: &str = "/grpc.health.v1.Health/Watch";
/// More load balancers than watch one daemon.
const MAX_HEALTH_STREAMS: usize = 256;

/// Where a request came in.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) peer: Peer,
    /// The address at which its connection arrived; none over a Unix socket, which no browser reaches.
    pub(crate) local: Option<IpAddr>,
}

/// Is told of each request that the gate refuses, with its reason in the contract's words, such as `HOST_REFUSED`.
pub type RefusalObserver = Arc<dyn Fn(&'static str) + Send + Sync>;

/// What a request must satisfy.
pub(crate) struct GateRules {
    hosts: HostRules,
    origins: OriginRules,
    max_requests: usize,
    requests: Arc<Semaphore>,
    health_streams: Arc<Semaphore>,
    refusals: Mutex<LogThrottle>,
    observer: Option<RefusalObserver>,
}

/// The gate, and the routes behind it. Clones share everything.
#[derive(Clone)]
pub(crate) struct Gate {
    rules: Arc<GateRules>,
    grpc: GrpcWebService<Router>,
    pages: Router,
}

/// A response, with its share of the requests.
pub(crate) struct GatedResponse {
    pub(crate) response: Response<Body>,
    pub(crate) request: Option<OwnedSemaphorePermit>,
}

impl GateRules {
    pub(crate) fn new(
        hosts: HostRules,
        origins: OriginRules,
        max_requests: usize,
        observer: Option<RefusalObserver>,
    ) -> Self {
        let max_requests = max_requests.min(Semaphore::MAX_PERMITS);
        let requests = Arc::new(Semaphore::new(max_requests));
        let health_streams = Arc::new(Semaphore::new(MAX_HEALTH_STREAMS));
        Self { hosts, origins, max_requests, requests, health_streams, refusals: Mutex::default(), observer }
    }

    /// Checks what a request says of itself, and where it comes from.
    fn check(&self, request: &Request<Body>, arrival: &Arrival) -> Result<PageOrigin, Refusal> {
        let (bytes, limit) = (header_bytes(request), MAX_HEADER_BYTES as usize);
        if bytes > limit {
            return Err(Refusal::HeadersTooLarge { bytes, limit });
        }
        if let Some(local) = arrival.local {
            self.hosts.check(request, local)?;
        }
        self.origins.check(request)
    }

    /// A request's share, if there is one left.
    fn begin(&self, path: &str) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        if UNCOUNTED_PATHS.contains(&path) {
            return Ok(None);
        }
        let (places, refusal) = match path {
            HEALTH_STREAM_PATH => (&self.health_streams, Refusal::TooManyHealthStreams { limit: MAX_HEALTH_STREAMS }),
            _ => (&self.requests, Refusal::TooManyRequests { limit: self.max_requests }),
        };
        places.clone().try_acquire_owned().map(Some).map_err(|_| refusal)
    }

    /// Logs and counts a refusal.
    fn record(&self, refusal: &Refusal, peer: &Peer) {
        if let Some(observer) = &self.observer {
            observer(refusal.reason());
        }
        // The client is told every time, the log once a minute.
        let refused = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).count();
        if let Some(refused) = refused {
            tracing::warn!(?peer, refused, "requests are refused: {refusal}");
        }
    }
}

impl Gate {
    pub(crate) fn new(rules: GateRules, grpc: Router, pages: Router) -> Self {
        Self { rules: Arc::new(rules), grpc: GrpcWebLayer::new().layer(grpc), pages }
    }

    /// The answer to a request. Its call is admitted by the routes that know its caller.
    pub(crate) async fn answer(&self, mut request: Request<Body>, arrival: &Arrival, call: &OpenCall) -> GatedResponse {
        let dialect = Dialect::of(request.headers());
        if dialect == Dialect::Plain {
            remove_trailing_slash(request.uri_mut());
        }
        let origin = match self.rules.check(&request, arrival) {
            Ok(origin) => origin,
            Err(refusal) => {
                self.rules.record(&refusal, &arrival.peer);
                return GatedResponse::of(refusal.to_response(&dialect));
            }
        };
        if matches!(origin, PageOrigin::Listed(_)) && origin_rules::is_preflight(&request) {
            return GatedResponse::of(origin.allow(origin_rules::preflight(request.headers())));
        }
        let is_health_stream = request.uri().path() == HEALTH_STREAM_PATH;
        let permit = match self.rules.begin(request.uri().path()) {
            Ok(permit) => permit,
            Err(refusal) => {
                self.rules.record(&refusal, &arrival.peer);
                return GatedResponse::of(origin.allow(refusal.to_response(&dialect)));
            }
        };
        let is_counted = permit.is_some();
        request.extensions_mut().insert(call.clone());
        let routed = self.route(request, dialect.clone(), arrival.peer.clone());
        let response = match is_counted {
            true => routed.await,
            // Strangers may ask for these, and may leave the rest of their request unsent.
            false => timeout(UNCOUNTED_TIMEOUT, routed).await.unwrap_or_else(|_| {
                let refusal = Refusal::BodyTimeout(UNCOUNTED_TIMEOUT);
                self.rules.record(&refusal, &arrival.peer);
                refusal.to_response(&dialect)
            }),
        };
        // What a stranger is told, however slowly it reads that, takes no place from others.
        let permit = permit.filter(|_| call.is_admitted() || is_health_stream);
        GatedResponse { response: origin.allow(response), request: permit }
    }

    /// Hands a request to the route that its client means.
    async fn route(&self, mut request: Request<Body>, dialect: Dialect, peer: Peer) -> Response<Body> {
        request.extensions_mut().insert(peer);
        let (version, method) = (request.version(), request.method().clone());
        let answered: Result<Response<Body>, Infallible> = match dialect {
            Dialect::Grpc if version != Version::HTTP_2 => return Refusal::GrpcOverHttp1.to_page(),
            Dialect::GrpcWeb(_) if method != Method::POST => return Refusal::NotPosted(method).to_page(),
            Dialect::Grpc | Dialect::GrpcWeb(_) => {
                self.grpc.clone().oneshot(request).await.map(|response| response.map(Body::new))
            }
            Dialect::Plain => self.pages.clone().oneshot(request).await,
        };
        answered.unwrap_or_else(|never| match never {})
    }
}

impl GatedResponse {
    fn of(response: Response<Body>) -> Self {
        Self { response, request: None }
    }
}

/// Clients whose base address ends in a slash mean the same pages.
fn remove_trailing_slash(uri: &mut Uri) {
    let (path, query) = (uri.path().trim_end_matches('/'), uri.query());
    if path.is_empty() || path.len() == uri.path().len() {
        return;
    }
    let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = target.parse().ok();
    if let Ok(without) = Uri::from_parts(parts) {
        *uri = without;
    }
}

/// The bytes of a request before its body, as HTTP/2 counts them.
fn header_bytes(request: &Request<Body>) -> usize {
    let uri = request.uri();
    let target = uri.path_and_query().map_or(0, |path| path.as_str().len())
        + uri.authority().map_or(0, |authority| authority.as_str().len());
    target + listed_bytes(request.headers())
}

fn listed_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_ENTRY_BYTES).sum()
}

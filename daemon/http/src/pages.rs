//! The pages that every daemon has: whether it is alive, whether it takes work, and its metrics.

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::refusal::{Refusal, shown};

/// The path that tells whether the process answers.
pub(crate) const HEALTH_PATH: &str = "/healthz";
/// The path that tells whether work is accepted.
pub(crate) const READY_PATH: &str = "/readyz";
/// The path of the metrics.
const METRICS_PATH: &str = "/metrics";
const ALIVE_TEXT: &str = "ok";

/// Whether a daemon accepts work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It does.
    Ready,
    /// It does not; why, in words.
    NotReady(String),
}

/// Makes the text of the metrics, for which it may ask what it measures.
type MetricsText = dyn Fn() -> MetricsFuture + Send + Sync;
/// The text, once it is there.
type MetricsFuture = Pin<Box<dyn Future<Output = String> + Send>>;

/// What the pages answer from. Clones share it.
#[derive(Clone)]
pub struct Pages {
    readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    metrics: Option<Arc<MetricsText>>,
}

impl Pages {
    /// Without metrics.
    pub fn new(readiness: impl Fn() -> Readiness + Send + Sync + 'static) -> Self {
        Self { readiness: Arc::new(readiness), metrics: None }
    }

    /// With metrics, in the text format of OpenMetrics.
    #[must_use]
    pub fn with_metrics<F>(self, metrics: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = String> + Send + 'static,
    {
        let text = move || -> MetricsFuture { Box::pin(metrics()) };
        Self { metrics: Some(Arc::new(text)), ..self }
    }

    /// Their routes: `/healthz`, `/readyz`, and `/metrics` if there are metrics. Everything else is answered in words, as one of
    /// them: what is laid around them decides about that as well.
    pub fn routes(self) -> Router {
        let readiness = self.readiness;
        let routes = Router::new()
            .route(HEALTH_PATH, get(|| async { ALIVE_TEXT }))
            .route(READY_PATH, get(move || async move { ready_page(readiness()) }));
        let routes = match self.metrics {
            Some(metrics) => routes.route(
                METRICS_PATH,
                get(move || async move { ([(CONTENT_TYPE, artel_metrics::CONTENT_TYPE)], metrics().await) }),
            ),
            None => routes,
        };
        // No body of theirs is waited for: they have none.
        routes.fallback(not_found).method_not_allowed_fallback(method_not_allowed)
    }
}

fn ready_page(readiness: Readiness) -> Response {
    match readiness {
        Readiness::Ready => ALIVE_TEXT.into_response(),
        Readiness::NotReady(reason) => Refusal::NotReady(reason).to_page(),
    }
}

async fn not_found(uri: Uri) -> Response {
    Refusal::NotFound(shown(uri.path())).to_page()
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    Refusal::MethodNotAllowed { path: shown(uri.path()), method }.to_page()
}

//! The parts of a daemon, and how they are put together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use artel_access::{Access, PublishedAddress};
use artel_actors::{Clock, Loader, Runtime};
use artel_feedback::{FeedbackStore, RatingStore};
use artel_grpc::{AccessLayer, MeteredPagesLayer, ReloadStatus, ServerPaths, ServiceState};
use artel_http::{Port, with_body_limits};
use artel_journal::Journal;
use artel_log::LogHandle;
use artel_roles::Catalog;
use artel_training_runs::TrainingRuns;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::hooks::ServeHooks;
use super::loader::LlamaLoader;
use super::port::{self, ListeningPort};
use super::reload;
use super::served_models::ServedModels;
use super::span_export::SpanExport;
use super::training_host::DaemonTrainingHost;
use crate::trace_config::TraceConfig;

/// How often refused calls that were only counted are looked for: each is logged within twice the time.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(30);

/// A daemon that serves.
pub(super) struct RunningDaemon {
    pub(super) address: std::net::SocketAddr,
    /// What the verbs of the same user find in the data directory, unless TCP is encrypted.
    pub(super) published: Option<PublishedAddress>,
    pub(super) runtime: Runtime,
    pub(super) training_runs: TrainingRuns,
    pub(super) reload_status: ReloadStatus,
    /// Cancelled when it accepts no more work.
    pub(super) draining: CancellationToken,
    /// Cancelled when its server is to end.
    pub(super) closing: CancellationToken,
    /// Ends with the number of connections that were cut off.
    pub(super) server: JoinHandle<usize>,
    /// Sends the spans, if there are traces.
    pub(super) spans: Option<SpanExport>,
}

impl RunningDaemon {
    /// Opens the journal, resumes tasks and serves.
    pub(super) async fn start(
        config: &Config,
        traces: &TraceConfig,
        hooks: ServeHooks,
        log: LogHandle,
    ) -> Result<Self> {
        let spans = SpanExport::start(traces, config.runtime.metrics.traces.clone())?;
        let listening = ListeningPort::listen(&config.port, config.runtime.metrics.connections.clone()).await?;
        let address = listening.address;
        let catalog = Catalog::load(config.catalog.as_deref())
            .map_err(|problems| anyhow!("the catalog is invalid:\n{problems}"))?;
        reload::log_warnings(&catalog);
        let metrics = config.runtime.metrics.journal.clone();
        let journal = artel_journal::Options { hook: hooks.journal_hook, metrics, ..config.journal.clone() };
        let journal = Journal::open(&config.data, journal).await.map_err(|e| anyhow!("{e}"))?;
        // The lock of the journal keeps other daemons from its tokens.
        let access = Access::open(&config.data, Clock::default()).context("failed to open the tokens")?;
        tokio::spawn(log_refusals(access.clone()));
        let (sockets, tls) = listening.with_socket(&config.port.socket)?;
        let published = if tls.is_none() { port::publish(&config.data, address) } else { None };
        // Before any model is loaded, so that no file is in use.
        artel_gguf::remove_stale_files(&config.dequantized_dir());
        let feedback = FeedbackStore::open(&config.data).context("failed to open the feedback store")?;
        let ratings = RatingStore::open(&config.data).context("failed to open the store of ratings")?;
        let llama = Arc::new(LlamaLoader::new(config).with_log(log.clone()));
        let loader: Arc<dyn Loader> = llama.clone();
        let loader = match hooks.wrap_loader {
            Some(wrap) => wrap(loader),
            None => loader,
        };
        let options = artel_actors::Options {
            feedback: Some(feedback.clone()),
            ratings: Some(ratings.clone()),
            tracer: spans.as_ref().map(|spans| spans.tracer.clone()),
            ..config.runtime.clone()
        };
        let runtime = Runtime::start(options, catalog, journal, loader).await?;
        let host = Arc::new(DaemonTrainingHost::new(runtime.clone(), config.threads)?);
        let training_runs = TrainingRuns::open(config.training(), &ratings, host);
        let training_runs = training_runs.context("failed to open the training runs")?;
        let models = config.runtime.models_dir.clone();
        let (draining, closing, reload_status) = Default::default();
        let state = ServiceState {
            runtime: runtime.clone(),
            access: access.clone(),
            machine: llama,
            feedback,
            ratings,
            training_runs: training_runs.clone(),
            training_lock: Arc::default(),
            log,
            scrape_lock: Arc::default(),
            // Without a directory of its own, a client's catalog finds files in that of models only.
            base_dir: config.catalog.clone().unwrap_or_else(|| models.clone()),
            network: config.network.clone(),
            paths: ServerPaths::new(&models, config.catalog.as_deref(), &config.data),
            models,
            reload_status: ReloadStatus::clone(&reload_status),
            draining: CancellationToken::clone(&draining),
            closing: CancellationToken::clone(&closing),
        };
        let counted = runtime.metrics().clone();
        let pages = port::pages(runtime.clone(), CancellationToken::clone(&draining)).with_metrics({
            let state = state.clone();
            move || {
                let state = state.clone();
                async move { state.scrape().await }
            }
        });
        let served = ServedModels::new(runtime.clone(), config.runtime.models_dir.clone());
        let openai = with_body_limits(artel_openai::routes(state.clone(), Arc::new(served)));
        let port = Port {
            grpc: artel_grpc::routes(state).await.context("failed to make the routes of gRPC")?,
            pages: pages
                .routes()
                .merge(openai)
                .layer(AccessLayer::new(access, runtime.metrics().clone()))
                .layer(MeteredPagesLayer::new(runtime.metrics().clone(), runtime.tracer().cloned())),
            hosts: config.port.hosts.clone(),
            origins: config.port.origins.clone(),
            max_requests: config.port.max_requests,
            timeouts: config.port.timeouts,
            tls,
            observer: Some(Arc::new(move |reason| counted.calls.refused(reason))),
            closing: CancellationToken::clone(&closing),
        };
        let server = tokio::spawn(port.serve(sockets));
        Ok(Self { address, published, runtime, training_runs, reload_status, draining, closing, server, spans })
    }
}

/// Logs the number of refused calls, also when no further one comes.
async fn log_refusals(access: Access) {
    let mut interval = tokio::time::interval(REFUSAL_LOG_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        access.log_pending_refusals();
    }
}

//! The parts of a daemon, and how they are put together.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use artel_accept::{Acceptor, ConnectionLimits, raise_descriptor_limit};
use artel_actors::{Loader, Runtime};
use artel_grpc::{ReloadStatus, ServerPaths, ServiceState};
use artel_journal::{FeedbackStore, Journal};
use artel_roles::Catalog;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::hooks::ServeHooks;
use super::loader::LlamaLoader;
use super::reload;

/// A daemon that serves.
pub(super) struct RunningDaemon {
    pub(super) address: std::net::SocketAddr,
    pub(super) runtime: Runtime,
    pub(super) reload_status: ReloadStatus,
    /// Cancelled when it accepts no more work.
    pub(super) draining: CancellationToken,
    /// Cancelled when its server is to end.
    pub(super) closing: CancellationToken,
    /// Ends with the number of connections that were cut off.
    pub(super) server: JoinHandle<Result<usize, artel_grpc::Error>>,
}

impl RunningDaemon {
    /// Opens the journal, resumes tasks and serves.
    pub(super) async fn start(config: &Config, hooks: ServeHooks) -> Result<Self> {
        let acceptor = listen(config).await?;
        let address = acceptor.local_addr().context("failed to read the listening address")?;
        let catalog = Catalog::load(config.catalog.as_deref())
            .map_err(|problems| anyhow!("the catalog is invalid:\n{problems}"))?;
        reload::log_warnings(&catalog);
        let journal = artel_journal::Options { hook: hooks.journal_hook, ..config.journal.clone() };
        let journal = Journal::open(&config.data, journal).await.map_err(|e| anyhow!("{e}"))?;
        // Before any model is loaded, so that no file is in use.
        artel_gguf::remove_stale_files(&config.dequantized_dir());
        let feedback = FeedbackStore::open(&config.data).context("failed to open the feedback store")?;
        let llama = Arc::new(LlamaLoader::new(config));
        let loader: Arc<dyn Loader> = llama.clone();
        let loader = match hooks.wrap_loader {
            Some(wrap) => wrap(loader),
            None => loader,
        };
        let runtime = Runtime::start(config.runtime.clone(), catalog, journal, loader).await?;
        let models = config.runtime.models_dir.clone();
        let (draining, closing, reload_status) = Default::default();
        let state = ServiceState {
            runtime: runtime.clone(),
            machine: llama,
            feedback,
            // Without a directory of its own, a client's catalog finds files in that of models only.
            base_dir: config.catalog.clone().unwrap_or_else(|| models.clone()),
            network: config.network.clone(),
            paths: ServerPaths::new(&models, config.catalog.as_deref(), &config.data),
            models,
            reload_status: ReloadStatus::clone(&reload_status),
            draining: CancellationToken::clone(&draining),
            closing: CancellationToken::clone(&closing),
        };
        let server = tokio::spawn(artel_grpc::serve(state, acceptor, config.connection_timeouts));
        Ok(Self { address, runtime, reload_status, draining, closing, server })
    }
}

/// Listens, with the limits that follow from the descriptors of the process.
async fn listen(config: &Config) -> Result<Acceptor> {
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "failed to listen on {}: another daemon may be running there; choose another address with `--listen`",
            config.listen
        )
    })?;
    let descriptors = raise_descriptor_limit();
    let (total, per_peer) = config.max_connections;
    let limits = ConnectionLimits::within(descriptors, 1, total, per_peer);
    tracing::info!(descriptors, connections = limits.total, per_peer = limits.per_peer, "the limits of connections");
    if let Some(wanted) = total.filter(|wanted| *wanted > limits.total) {
        tracing::warn!(
            wanted,
            possible = limits.total,
            "`connections.max` needs more open files than the process may have"
        );
    }
    Ok(Acceptor::new(listener, limits))
}

//! The daemon: configuration, composition, run, drain.

mod catalog_watcher;
mod compute_buffer_cache;
pub(crate) mod config;
mod devices;
pub(crate) mod loader;
mod reload;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use artel_actors::{Loader, Runtime};
use artel_args::ServeArgs;
use artel_grpc::{ReloadStatus, ServerPaths, ServiceState};
use artel_journal::{CommitHook, FeedbackStore, Journal};
use artel_roles::Catalog;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::signals::{DaemonSignal, SignalListener};
use crate::telemetry;
use catalog_watcher::CatalogWatcher;
use config::Config;
use loader::LlamaLoader;
use reload::ReloadCause;

/// How often unused dequantized model files are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Makes a loader of engines from the daemon's own, such as one that loads some models in another way.
pub type LoaderWrapper = Box<dyn FnOnce(Arc<dyn Loader>) -> Arc<dyn Loader> + Send>;

/// What a program puts around the parts of a daemon. By default nothing, as in the released program.
#[derive(Default)]
pub struct ServeHooks {
    /// Replaces the loader of engines.
    pub wrap_loader: Option<LoaderWrapper>,
    /// Is called around every commit of the journal.
    pub journal_hook: Option<Arc<dyn CommitHook>>,
}

/// `artel serve`: runs until a signal or a failure; the exit code is 0 after a signal.
pub(crate) fn run(args: &ServeArgs, json: bool, hooks: ServeHooks) -> ExitCode {
    telemetry::start(json);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome =
        runtime.context("failed to start the runtime").and_then(|runtime| runtime.block_on(serve(args, json, hooks)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // YAML diagnostics have several lines, which a log record would join.
            eprintln!("artel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: &ServeArgs, json: bool, hooks: ServeHooks) -> Result<()> {
    let config = Config::of(&args.daemon, args.listen)?;
    let mut signals = SignalListener::listen().context("failed to listen for signals")?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "failed to listen on {}: another daemon may be running there; choose another address with `--listen`",
            config.listen
        )
    })?;
    let catalog = Catalog::load(config.catalog.as_deref())
        .map_err(|problems| anyhow::anyhow!("the catalog is invalid:\n{problems}"))?;
    reload::log_warnings(&catalog);
    let journal = artel_journal::Options { hook: hooks.journal_hook, ..config.journal.clone() };
    let journal = Journal::open(&config.data, journal).await.map_err(|e| anyhow::anyhow!("{e}"))?;
    // Before any model is loaded, so that no file is in use.
    artel_gguf::remove_stale_files(&config.dequantized_dir());
    let feedback = FeedbackStore::open(&config.data).context("failed to open the feedback store")?;
    let llama = Arc::new(LlamaLoader::new(&config));
    let loader: Arc<dyn Loader> = llama.clone();
    let loader = match hooks.wrap_loader {
        Some(wrap) => wrap(loader),
        None => loader,
    };
    let runtime = Runtime::start(config.runtime.clone(), catalog, journal, loader).await?;
    let closing = CancellationToken::new();
    let base_dir = config.catalog.clone().unwrap_or_else(|| config.data.clone());
    let (models, draining) = (config.runtime.models_dir.clone(), CancellationToken::new());
    let paths = ServerPaths::new(&models, config.catalog.as_deref(), &config.data);
    let (drain, close, reload_status) = (draining.clone(), closing.clone(), ReloadStatus::default());
    let state = ServiceState {
        runtime: runtime.clone(),
        machine: llama,
        feedback,
        models,
        base_dir,
        paths,
        reload_status: reload_status.clone(),
        draining: drain,
        closing: close,
    };
    let address = listener.local_addr().context("failed to read the listening address")?;
    let server = tokio::spawn(artel_grpc::serve(state, listener));
    announce(address, json)?;
    let outcome = run_until_stopped(&mut signals, &runtime, &config, &reload_status).await;
    draining.cancel();
    let second_signal = signals.stop_requested();
    let unfinished = tokio::select! {
        unfinished = runtime.drain(config.grace) => unfinished,
        // A second signal ends the grace period.
        () = second_signal => runtime.drain(Duration::ZERO).await,
    };
    closing.cancel();
    match tokio::time::timeout(artel_grpc::CLOSE_TIMEOUT, server).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::error!(error = format!("{:#}", anyhow::Error::from(error)), "the server failed"),
        Ok(Err(error)) => tracing::error!(%error, "the server panicked"),
        Err(_) => tracing::warn!("closed with client connections still open"),
    }
    tracing::info!(unfinished, "stopped; unfinished tasks resume at the next start");
    outcome
}

/// Prints the listening address on standard output, for users and for programs that started the daemon.
fn announce(address: std::net::SocketAddr, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let line = if json {
        serde_json::json!({"listening": address.to_string(), "version": env!("CARGO_PKG_VERSION")}).to_string()
    } else {
        format!("artel {} listens on {address}", env!("CARGO_PKG_VERSION"))
    };
    writeln!(out, "{line}").and_then(|()| out.flush()).context("failed to write to standard output")
}

/// Runs until a signal, or until the supervisor stops, which is an error. Reloads the catalog on SIGHUP and when its directory
/// changes.
async fn run_until_stopped(
    signals: &mut SignalListener,
    runtime: &Runtime,
    config: &Config,
    status: &ReloadStatus,
) -> Result<()> {
    let (dir, watcher) = (config.catalog.as_deref(), catalog_watcher(config));
    let changed = async || match &watcher {
        Some(watcher) => watcher.changed().await,
        None => std::future::pending().await,
    };
    let mut recovered = std::pin::pin!(runtime.journal_recovered());
    let mut sweeps = tokio::time::interval_at(tokio::time::Instant::now() + SWEEP_INTERVAL, SWEEP_INTERVAL);
    loop {
        tokio::select! {
            _ = sweeps.tick() => artel_gguf::remove_stale_files(&config.dequantized_dir()),
            signal = signals.next() => match signal {
                DaemonSignal::Stop(name) => {
                    tracing::info!(signal = name, running = runtime.running_tasks(), grace = ?config.grace, "stopping");
                    return Ok(());
                }
                DaemonSignal::Reload => reload::reload(runtime, dir, status, ReloadCause::Requested).await,
            },
            () = changed() => reload::reload(runtime, dir, status, ReloadCause::FilesChanged).await,
            () = &mut recovered => {
                tracing::info!("the journal is writable again");
                if let Err(error) = runtime.resume_tasks().await {
                    tracing::error!(%error, "failed to resume suspended tasks; they resume at the next start");
                }
                recovered.set(runtime.journal_recovered());
            }
            () = runtime.stopped() => bail!("the supervisor stopped; tasks resume at the next start"),
        }
    }
}

/// The watcher of the catalog's directory, if there is one and the settings do not disable it.
fn catalog_watcher(config: &Config) -> Option<CatalogWatcher> {
    let dir = config.catalog.as_deref().filter(|_| config.watch)?;
    let warn = |error: &notify::Error| {
        tracing::warn!(dir = %dir.display(), %error, "changes of the catalog directory are not detected; send SIGHUP to reload");
    };
    CatalogWatcher::new(dir).inspect_err(warn).ok()
}

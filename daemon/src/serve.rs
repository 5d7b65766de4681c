//! The daemon: configuration, composition, run, drain.

mod catalog_watcher;
mod compute_buffer_cache;
pub(crate) mod config;
pub(crate) mod devices;
#[cfg(feature = "failpoints")]
mod failpoints;
pub(crate) mod files;
pub(crate) mod loader;
pub(crate) mod reload;
pub(crate) mod signals;
pub(crate) mod telemetry;

pub(crate) use config::cores;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use artel_actors::{Loader, Runtime};
use artel_journal::{FeedbackStore, Journal};
use artel_roles::Catalog;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::args;
use crate::grpc::{self, ServiceState};
use catalog_watcher::CatalogWatcher;
use config::Config;
use loader::LlamaLoader;
use reload::{ReloadCause, ReloadStatus};
use signals::{DaemonSignal, SignalListener};

/// How often unused dequantized model files are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// `artel serve`: runs until a signal or a failure; the exit code is 0 after a signal.
pub(crate) fn run(args: &args::ServeArgs, json: bool) -> ExitCode {
    telemetry::start(json);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome =
        runtime.context("failed to start the runtime").and_then(|runtime| runtime.block_on(serve(args, json)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // YAML diagnostics have several lines, which a log record would join.
            eprintln!("artel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: &args::ServeArgs, json: bool) -> Result<()> {
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
    let journal = Journal::open(&config.data, config.journal.clone()).await.map_err(|e| anyhow::anyhow!("{e}"))?;
    // Before any model is loaded, so that no file is in use.
    artel_llama::gguf::remove_stale_files(&config.dequantized_dir());
    let feedback = FeedbackStore::open(&config.data).context("failed to open the feedback store")?;
    let llama = Arc::new(LlamaLoader::new(&config));
    #[cfg(not(feature = "failpoints"))]
    let loader: Arc<dyn Loader> = llama.clone();
    #[cfg(feature = "failpoints")]
    let loader: Arc<dyn Loader> = Arc::new(failpoints::ScriptModelLoader::new(llama.clone()));
    let runtime = Runtime::start(config.runtime.clone(), catalog, journal, loader).await?;
    let closing = CancellationToken::new();
    let base_dir = config.catalog.clone().unwrap_or_else(|| config.data.clone());
    let (models, draining) = (config.runtime.models_dir.clone(), CancellationToken::new());
    let (drain, close, reload_status) = (draining.clone(), closing.clone(), ReloadStatus::default());
    let state = ServiceState {
        runtime: runtime.clone(),
        loader: llama,
        feedback,
        models,
        base_dir,
        reload_status: reload_status.clone(),
        draining: drain,
        closing: close,
    };
    let address = listener.local_addr().context("failed to read the listening address")?;
    let server = tokio::spawn(grpc::serve(state, listener));
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
    if tokio::time::timeout(grpc::CLOSE_TIMEOUT, server).await.is_err() {
        tracing::warn!("closed with client connections still open");
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
            _ = sweeps.tick() => artel_llama::gguf::remove_stale_files(&config.dequantized_dir()),
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

//! The daemon: configuration, composition, run, drain.

pub(crate) mod config;
pub(crate) mod files;
pub(crate) mod hardware;
pub(crate) mod loader;
mod measured;
#[cfg(feature = "rehearsal")]
mod rehearsal;
pub(crate) mod reload;
pub(crate) mod signals;
pub(crate) mod telemetry;
mod watch;

pub(crate) use config::cores;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use artel_actors::{Runtime, Loader};
use artel_journal::{Feedback, Journal};
use artel_roles::Catalog;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::args;
use crate::grpc::{self, Served};
use config::Config;
use loader::LlamaLoader;
use reload::{Cause, Wrong};
use signals::{Signal, Signals};
use watch::Watch;

/// How often after the start it is looked for recast files that nobody uses.
const SWEEPS: Duration = Duration::from_secs(24 * 3600);

/// `artel serve`: runs until a signal or a fault; the exit code is 0 after a signal.
pub(crate) fn run(args: &args::Serve, json: bool) -> ExitCode {
    telemetry::start(json);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let served = runtime.context("failed to start the runtime").and_then(|runtime| runtime.block_on(serve(args, json)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Problems of YAML have many lines, which a log line would squeeze together.
            eprintln!("artel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: &args::Serve, json: bool) -> Result<()> {
    let config = Config::of(&args.setup, args.listen)?;
    let mut signals = Signals::listen().context("failed to listen for signals")?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "failed to listen on {}: is another daemon running there? `--listen` takes another address",
            config.listen
        )
    })?;
    let catalog = Catalog::load(config.catalog.as_deref())
        .map_err(|problems| anyhow::anyhow!("the catalog is not valid:\n{problems}"))?;
    reload::log_warnings(&catalog);
    let journal =
        Journal::open(&config.data, config.journal.clone()).await.map_err(|e| anyhow::anyhow!("failed to {e}"))?;
    // Before anything is loaded.
    artel_llama::gguf::remove_stale_files(&config.recast());
    let feedback = Feedback::open(&config.data).context("failed to open the feedback")?;
    let llama = Arc::new(LlamaLoader::new(&config));
    #[cfg(not(feature = "rehearsal"))]
    let loader: Arc<dyn Loader> = llama.clone();
    #[cfg(feature = "rehearsal")]
    let loader: Arc<dyn Loader> = Arc::new(rehearsal::ScriptLoader::new(llama.clone()));
    let crew = Runtime::start(config.crew.clone(), catalog, journal, loader).await?;
    let closing = CancellationToken::new();
    let place = config.catalog.clone().unwrap_or_else(|| config.data.clone());
    let (models, draining) = (config.crew.models_dir.clone(), CancellationToken::new());
    let (drain, close, wrong) = (draining.clone(), closing.clone(), Wrong::default());
    let served = Served {
        crew: crew.clone(),
        loader: llama,
        feedback,
        models,
        place,
        wrong: wrong.clone(),
        draining: drain,
        closing: close,
    };
    let address = listener.local_addr().context("failed to learn the address")?;
    let server = tokio::spawn(grpc::serve(served, listener));
    ready(address, json)?;
    let fault = watch(&mut signals, &crew, &config, &wrong).await;
    draining.cancel();
    let skip = signals.another();
    let left = tokio::select! {
        left = crew.drain(config.grace) => left,
        // Asked twice: no more grace.
        () = skip => crew.drain(Duration::ZERO).await,
    };
    closing.cancel();
    if tokio::time::timeout(grpc::CLOSE, server).await.is_err() {
        tracing::warn!("clients kept their connections open; left them");
    }
    tracing::info!(left, "stopped; tasks that were left go on at the next start");
    fault
}

/// Says where it listens, on standard output, for people and for programs that started it.
fn ready(address: std::net::SocketAddr, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let line = if json {
        serde_json::json!({"listening": address.to_string(), "version": env!("CARGO_PKG_VERSION")}).to_string()
    } else {
        format!("artel {} listens on {address}", env!("CARGO_PKG_VERSION"))
    };
    writeln!(out, "{line}").and_then(|()| out.flush()).context("failed to write to standard output")
}

/// Waits for the end: a signal, or the end of the crew, which is a fault. Reloads the catalog on SIGHUP and when its directory
/// changes.
async fn watch(signals: &mut Signals, crew: &Runtime, config: &Config, wrong: &Wrong) -> Result<()> {
    let (dir, directory) = (config.catalog.as_deref(), watched(config));
    let changed = async || match &directory {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    };
    let mut recovered = std::pin::pin!(crew.journal_recovered());
    let mut sweeps = tokio::time::interval_at(tokio::time::Instant::now() + SWEEPS, SWEEPS);
    loop {
        tokio::select! {
            _ = sweeps.tick() => artel_llama::gguf::remove_stale_files(&config.recast()),
            signal = signals.next() => match signal {
                Signal::Stop(name) => {
                    tracing::info!(signal = name, running = crew.running_tasks(), grace = ?config.grace, "stopping");
                    return Ok(());
                }
                Signal::Reload => reload::reload(crew, dir, wrong, Cause::Asked).await,
            },
            () = changed() => reload::reload(crew, dir, wrong, Cause::Changed).await,
            () = &mut recovered => {
                tracing::info!("the journal takes writes again");
                if let Err(error) = crew.resume_tasks().await {
                    tracing::error!(%error, "tasks that rest go on at the next start");
                }
                recovered.set(crew.journal_recovered());
            }
            () = crew.stopped() => bail!("the supervisor stopped; tasks go on at the next start"),
        }
    }
}

/// The watch over the catalog's directory, if there is one and somebody wants it watched.
fn watched(config: &Config) -> Option<Watch> {
    let dir = config.catalog.as_deref().filter(|_| config.watch)?;
    let refused = |error: &notify::Error| {
        tracing::warn!(dir = %dir.display(), %error, "changes of the catalog are not seen; SIGHUP has it read again");
    };
    Watch::of(dir).inspect_err(refused).ok()
}

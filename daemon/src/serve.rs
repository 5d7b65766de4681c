//! The daemon: configuration, composition, run, drain.

mod catalog_watcher;
mod compute_buffer_cache;
pub(crate) mod config;
mod devices;
mod hooks;
pub(crate) mod loader;
mod reload;
mod running_daemon;
mod shutdown;
mod stop_watchdog;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use artel_actors::Runtime;
use artel_args::ServeArgs;
use futures::FutureExt as _;

use crate::signals::{DaemonSignal, SignalListener};
use crate::telemetry;
use catalog_watcher::CatalogWatcher;
use config::Config;
use reload::ReloadCause;
use running_daemon::RunningDaemon;
use shutdown::StopReport;
use stop_watchdog::StopWatchdog;

pub use hooks::{LoaderWrapper, ServeHooks};

/// How often unused dequantized model files are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// `artel serve`: runs until a signal or a failure; the exit code is 0 after a signal, unless something did not end in time.
pub(crate) fn run(args: &ServeArgs, json: bool, hooks: ServeHooks) -> ExitCode {
    telemetry::start(json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::from(error).context("failed to start the runtime")),
    };
    let served = runtime.block_on(serve(args, json, hooks));
    let have_threads_ended = shutdown::end_threads(runtime);
    match served {
        Ok((cause, report)) => {
            let code = report.log(have_threads_ended);
            cause.map_or_else(|error| failed(&error), |()| code)
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // YAML diagnostics have several lines, which a log record would join.
    eprintln!("artel: {error:#}");
    ExitCode::FAILURE
}

/// Runs until a signal or a failure of the supervisor: the failure if there was one, and how the daemon stopped.
async fn serve(args: &ServeArgs, json: bool, hooks: ServeHooks) -> Result<(Result<()>, StopReport)> {
    let config = Config::of(&args.daemon, args.listen)?;
    let mut signals = SignalListener::listen().context("failed to listen for signals")?;
    let watchdog = StopWatchdog::start(config.grace).context("failed to start the watchdog")?;
    // Before the catalog is read, so that no later change is missed.
    let watcher = catalog_watcher(&config);
    let daemon = tokio::select! {
        daemon = RunningDaemon::start(&config, hooks) => daemon?,
        // A disk that hangs must not keep the daemon from stopping: nothing was acknowledged yet.
        signal = signals.stop_requested() => {
            tracing::info!(signal, "stopping before the daemon has served");
            return Ok((Ok(()), StopReport::default()));
        }
    };
    announce(daemon.address, json)?;
    watchdog.enter("run");
    let cause = run_until_stopped(&mut signals, &daemon, &config, watcher.as_ref()).await;
    let close_timeout = config.connection_timeouts.close;
    Ok((cause, shutdown::stop(daemon, &mut signals, config.grace, close_timeout, &watchdog).await))
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
/// changes. A signal also ends a reload that hangs.
async fn run_until_stopped(
    signals: &mut SignalListener,
    daemon: &RunningDaemon,
    config: &Config,
    watcher: Option<&CatalogWatcher>,
) -> Result<()> {
    let dir = config.catalog.as_deref();
    let changed = async || match watcher {
        Some(watcher) => watcher.changed().await,
        None => std::future::pending().await,
    };
    let (runtime, status) = (&daemon.runtime, &daemon.reload_status);
    let mut recovered = std::pin::pin!(runtime.journal_recovered());
    let mut sweeps = tokio::time::interval_at(tokio::time::Instant::now() + SWEEP_INTERVAL, SWEEP_INTERVAL);
    let signal = loop {
        let work = tokio::select! {
            _ = sweeps.tick() => {
                artel_gguf::remove_stale_files(&config.dequantized_dir());
                continue;
            }
            signal = signals.next() => match signal {
                DaemonSignal::Stop(name) => break name,
                DaemonSignal::Reload => reload::reload(runtime, dir, status, ReloadCause::Requested).boxed(),
            },
            () = changed() => reload::reload(runtime, dir, status, ReloadCause::FilesChanged).boxed(),
            () = &mut recovered => {
                recovered.set(runtime.journal_recovered());
                resume_after_recovery(runtime).boxed()
            }
            () = runtime.stopped() => bail!("the supervisor stopped; tasks resume at the next start"),
        };
        tokio::select! {
            () = work => {}
            name = signals.stop_requested() => break name,
        }
    };
    tracing::info!(signal, running = runtime.running_tasks(), grace = ?config.grace, "stopping");
    Ok(())
}

async fn resume_after_recovery(runtime: &Runtime) {
    tracing::info!("the journal is writable again");
    if let Err(error) = runtime.resume_tasks().await {
        tracing::error!(%error, "failed to resume suspended tasks; they resume at the next start");
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

//! The daemon: configuration, composition, run, drain.

mod catalog_watcher;
mod compute_buffer_cache;
pub(crate) mod config;
mod devices;
mod hooks;
pub(crate) mod loader;
pub(crate) mod port;
mod reload;
mod running_daemon;
mod served_models;
mod shutdown;
mod span_export;
mod stop_watchdog;
mod training_host;
mod verified_adapters;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use artel_actors::Runtime;
use artel_args::ServeArgs;
use artel_log::LogHandle;
use futures::FutureExt as _;

use crate::hardening::CoreDumps;
use crate::log_config::LogConfig;
use crate::settings_advice;
use crate::signals::{DaemonSignal, SignalListener};
use crate::telemetry::{self, FLUSH_TIMEOUT};
use crate::trace_config::TraceConfig;
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
pub(crate) fn run(args: &ServeArgs, json: bool, hooks: ServeHooks, core_dumps: CoreDumps) -> ExitCode {
    let (config, log) = match configure(args, json) {
        Ok(configured) => configured,
        Err(error) => {
            eprintln!("artel: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    core_dumps.decide(config.core_dumps);
    let code = run_logged(args, &config, json, hooks, &log).unwrap_or_else(|error| {
        // YAML diagnostics have several lines, which a log record would join.
        log.print(&format!("artel: {error:#}"));
        ExitCode::FAILURE
    });
    // Whether its reader has stopped or not.
    log.flush(FLUSH_TIMEOUT);
    code
}

/// Reads the settings, and starts the log as they say.
fn configure(args: &ServeArgs, json: bool) -> Result<(Config, LogHandle)> {
    let config = Config::of(&args.daemon, args.listen)?;
    let log = telemetry::start(&LogConfig::of(&args.log, &config.log)?, json)?;
    for warning in settings_advice::warnings(&config) {
        tracing::warn!(warning, "the settings have a warning");
    }
    Ok((config, log))
}

fn run_logged(args: &ServeArgs, config: &Config, json: bool, hooks: ServeHooks, log: &LogHandle) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("failed to start the runtime")?;
    let served = runtime.block_on(serve(args, config, json, hooks, log));
    let have_threads_ended = shutdown::end_threads(runtime);
    let (cause, report) = served?;
    let code = report.log(have_threads_ended);
    cause.map(|()| code)
}

/// Runs until a signal or a failure of the supervisor: the failure if there was one, and how the daemon stopped.
async fn serve(
    args: &ServeArgs,
    config: &Config,
    json: bool,
    hooks: ServeHooks,
    log: &LogHandle,
) -> Result<(Result<()>, StopReport)> {
    let traces = TraceConfig::of(&args.traces, &config.traces)?;
    let mut signals = SignalListener::listen().context("failed to listen for signals")?;
    let watchdog = StopWatchdog::start(config.grace).context("failed to start the watchdog")?;
    // Before the catalog is read, so that no later change is missed.
    let watcher = catalog_watcher(config);
    let daemon = tokio::select! {
        daemon = RunningDaemon::start(config, &traces, hooks, log.clone()) => daemon?,
        // A disk that hangs must not keep the daemon from stopping: nothing was acknowledged yet.
        signal = signals.stop_requested() => {
            tracing::info!(signal, "stopping before the daemon has served");
            return Ok((Ok(()), StopReport::default()));
        }
    };
    announce(daemon.address, &config.port.socket, json)?;
    watchdog.enter("run");
    let reload_log = || reload::reload_log_level(log, args);
    let cause = run_until_stopped(&mut signals, &daemon, config, watcher.as_ref(), reload_log).await;
    let close_timeout = config.port.timeouts.close;
    Ok((cause, shutdown::stop(daemon, &mut signals, config.grace, close_timeout, &watchdog).await))
}

/// Prints the listening address on standard output, for users and for programs that started the daemon.
fn announce(address: std::net::SocketAddr, socket: &Path, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let line = if json {
        let (version, socket) = (env!("CARGO_PKG_VERSION"), socket.to_string_lossy());
        serde_json::json!({"listening": address.to_string(), "socket": socket, "version": version}).to_string()
    } else {
        format!("artel {} listens on {address}", env!("CARGO_PKG_VERSION"))
    };
    writeln!(out, "{line}").and_then(|()| out.flush()).context("failed to write to standard output")
}

/// Runs until a signal, or until the supervisor stops, which is an error. Reloads the catalog on SIGHUP and when its directory
/// changes, and the level of the log on SIGHUP. A signal also ends a reload that hangs.
async fn run_until_stopped(
    signals: &mut SignalListener,
    daemon: &RunningDaemon,
    config: &Config,
    watcher: Option<&CatalogWatcher>,
    reload_log: impl Fn(),
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
                DaemonSignal::Reload => {
                    reload_log();
                    reload::reload(runtime, dir, status, ReloadCause::Requested).boxed()
                }
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
    tracing::info!(signal, running = runtime.running_tasks(), grace_seconds = config.grace.as_secs_f64(), "stopping");
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

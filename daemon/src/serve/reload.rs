//! Reloading the catalog from its directory.

use std::path::Path;

use artel_actors::Runtime;
use artel_args::ServeArgs;
use artel_grpc::ReloadStatus;
use artel_log::LogHandle;
use artel_roles::Catalog;

use super::config::Config;
use crate::log_config::LogConfig;

/// Why the directory is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReloadCause {
    /// A signal requested it.
    Requested,
    /// A file has changed there.
    FilesChanged,
}

/// Serves the new catalog if it is valid; otherwise only `status` changes.
pub(super) async fn reload(runtime: &Runtime, dir: Option<&Path>, status: &ReloadStatus, cause: ReloadCause) {
    let dir = dir.map(Path::to_owned);
    // A large catalog is read for a while.
    let loaded = match tokio::task::spawn_blocking(move || Catalog::load(dir.as_deref())).await {
        Ok(loaded) => loaded,
        Err(error) => return tracing::error!(%error, "failed to reload; the catalog stays as it was"),
    };
    let catalog = match loaded {
        Ok(catalog) => catalog,
        Err(problems) => {
            for problem in problems.iter() {
                tracing::error!(%problem, "failed to reload; the catalog stays as it was");
            }
            status.set(problems.iter().cloned().collect());
            return;
        }
    };
    status.set(Vec::new());
    // Unchanged content is not a new catalog, even if a file was touched.
    if cause == ReloadCause::FilesChanged && catalog.version() == runtime.catalog().version() {
        return;
    }
    log_warnings(&catalog);
    match runtime.replace_catalog(catalog, None).await {
        Ok(catalog) => tracing::info!(version = catalog.version().short(), "reloaded the catalog"),
        Err(error) => tracing::error!(%error, "failed to reload; the catalog stays as it was"),
    }
}

/// Logs what the flags and the settings file say now.
pub(super) fn reload_log_level(log: &LogHandle, args: &ServeArgs) {
    let config = Config::of(&args.daemon, args.listen).and_then(|config| LogConfig::of(&args.log, &config.log));
    match config {
        Ok(config) if config.filter == log.filter().get() => {}
        Ok(LogConfig { filter, .. }) => {
            tracing::info!(%filter, "the level of the log is that of the settings again");
            log.filter().set(&filter);
        }
        Err(error) => tracing::error!("failed to read the level of the log; it stays as it was: {error:#}"),
    }
}

/// Logs what is wrong with a catalog that is valid all the same.
pub(super) fn log_warnings(catalog: &Catalog) {
    for warning in catalog.warnings().iter() {
        tracing::warn!(%warning, "the catalog has a warning");
    }
}

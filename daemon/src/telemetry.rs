//! The log, on standard error.

use std::env;
use std::time::Duration;

use anyhow::{Context as _, Result};
use artel_log::{FilterHandle, LogHandle, start_unbuffered};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::log_config::{FILTER_VARIABLE, LogConfig};

/// Time for the last lines of the log: its reader may have stopped.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts the log of a daemon: nothing that reads it can hold the daemon up.
///
/// # Errors
/// There is no standard error, or no thread to write.
pub(crate) fn start(config: &LogConfig, json: bool) -> Result<LogHandle> {
    let options = artel_log::Options {
        format: config.line_format(json),
        filter: config.filter.clone(),
        forwarded_target: Some(artel_process::LOG_TARGET),
    };
    let (lines, log) = artel_log::start(options).context("failed to start the log")?;
    // An error means that a subscriber is already installed, which is fine.
    let _ = tracing_subscriber::registry().with(lines).try_init();
    log.take_panics();
    Ok(log)
}

/// Starts the log of an engine's process, as JSON for the daemon, which always reads it.
pub(crate) fn start_engine() -> FilterHandle {
    let filter = env::var(FILTER_VARIABLE).ok().and_then(|text| text.parse().ok());
    start_unbuffered(&filter.unwrap_or_default())
}

//! The log: on standard error, as text or as JSON.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// llama.cpp logs every tensor of a model at `debug`, and internal details at `info`.
const DEFAULT_FILTER: &str = "info,llama_cpp=warn";

/// Starts the log. `ARTEL_LOG` sets the filter, such as `debug` or `info,artel_engine=trace`.
pub(crate) fn start(json: bool) {
    let filter = EnvFilter::try_from_env("ARTEL_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let engines = format!("{}=trace", artel_process::LOG_TARGET).parse().expect("it is a valid directive");
    let filter = filter.add_directive(engines);
    // A log that cannot be written, for example on a full disk, must not end the daemon: by default the failure is printed to
    // standard error, which panics.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    let started = if json { log.json().try_init() } else { log.with_ansi(io::stderr().is_terminal()).try_init() };
    // An error means that a subscriber is already installed, which is fine.
    drop(started);
}

//! The flags of the log, and `artel log`.

use clap::{Args as Flags, Subcommand};

/// The words of `--log-format`.
const LOG_FORMATS: [&str; 3] = ["text", "json", "journald"];

/// What is logged, and how. The log goes to standard error.
#[derive(Debug, Clone, Default, Flags)]
pub struct LogArgs {
    /// What is logged: a level such as `debug`, or a filter such as `info,artel_engine=trace` [default: `log.level` of the
    /// settings file, or info,llama_cpp=warn]
    #[arg(long, env = "ARTEL_LOG", value_name = "FILTER")]
    pub log_level: Option<String>,
    /// What the lines of the log look like [default: `log.format` of the settings file, json with --json, journald if systemd
    /// reads the log, or text]
    #[arg(long, env = "ARTEL_LOG_FORMAT", value_name = "FORMAT", value_parser = LOG_FORMATS)]
    pub log_format: Option<String>,
}

/// `artel log`.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Show what the daemon logs, or change it until the daemon restarts or gets SIGHUP
    Level {
        /// What to log from now on: a level such as `debug`, or a filter such as `info,artel_engine=trace`
        filter: Option<String>,
    },
}

//! `artel doctor`.

use std::path::PathBuf;

use clap::Args as Flags;

/// `artel doctor`: what `artel serve` takes, as far as something can be looked at.
#[derive(Debug, Flags)]
pub(crate) struct Doctor {
    /// The daemon's configuration
    #[arg(long, env = "ARTEL_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the journal and other state lie
    #[arg(long, env = "ARTEL_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Roles, graphs and models that lie over the shipped ones
    #[arg(long, value_name = "DIR")]
    pub(crate) catalog: Option<PathBuf>,
    /// Where GGUF files lie that are not beside the YAML that names them
    #[arg(long, env = "ARTEL_MODELS", value_name = "DIR")]
    pub(crate) models: Option<PathBuf>,
    /// As a daemon that fetches nothing
    #[arg(long, env = "ARTEL_OFFLINE", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) offline: bool,
}

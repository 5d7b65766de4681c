//! `artel fetch`.

use std::path::PathBuf;

use clap::Args as Flags;

/// `artel fetch`.
#[derive(Debug, Flags)]
pub(crate) struct Fetch {
    /// The daemon's configuration
    #[arg(long, env = "ARTEL_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the journal and other state lie
    #[arg(long, env = "ARTEL_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Roles, graphs and models that lie over the shipped ones
    #[arg(long, value_name = "DIR")]
    pub(crate) catalog: Option<PathBuf>,
    /// Where GGUF files lie; what is fetched goes to `hf` below it
    #[arg(long, env = "ARTEL_MODELS", value_name = "DIR")]
    pub(crate) models: Option<PathBuf>,
    /// Fetch nothing, and say what is missing
    #[arg(long, env = "ARTEL_OFFLINE", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) offline: bool,
    /// Models of the catalog, with the adapters of their roles; without any, everything that the catalog names
    pub(crate) names: Vec<String>,
}

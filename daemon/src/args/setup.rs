//! What a daemon is set up with: the same flags wherever a verb does what a daemon would.

use std::path::PathBuf;

use clap::Args as Flags;

/// What a daemon is set up with.
#[derive(Debug, Clone, Default, Flags)]
pub(crate) struct Setup {
    /// The daemon's configuration
    #[arg(long, env = "ARTEL_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the journal and other state lie
    #[arg(long, env = "ARTEL_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Roles, graphs and models that lie over the shipped ones
    #[arg(long, value_name = "DIR")]
    pub(crate) catalog: Option<PathBuf>,
    /// Where GGUF files lie that are not beside the YAML that names them; what is fetched goes to `hf` below it
    #[arg(long, env = "ARTEL_MODELS", value_name = "DIR")]
    pub(crate) models: Option<PathBuf>,
    /// Fetch nothing; models with `hf:` addresses must be here already
    #[arg(long, env = "ARTEL_OFFLINE", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) offline: bool,
}

//! `artel init`.

use std::path::PathBuf;

use clap::Args as Flags;

use crate::DataArgs;

/// `artel init`.
#[derive(Debug, Flags)]
pub struct InitArgs {
    /// The directory of the catalog to write [default: the one that `serve` reads: `catalog` of the settings, or
    /// $XDG_CONFIG_HOME/artel/catalog or ~/.config/artel/catalog]
    pub dir: Option<PathBuf>,
    /// Ask nothing: take the default directory and the model that is offered, and download it
    #[arg(long)]
    pub yes: bool,
    /// Take this model of the table instead of the one that is offered
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// A table of models to offer, in YAML [default: init-models.yaml in $XDG_CONFIG_HOME/artel or ~/.config/artel, if it
    /// exists, or the table that ships]
    #[arg(long, value_name = "FILE")]
    pub models_table: Option<PathBuf>,
    /// Replace files that exist; each of them is kept as FILE.bak, or FILE.bak2 and so on
    #[arg(long)]
    pub force: bool,
    /// Where the state of the daemon is.
    #[command(flatten)]
    pub data: DataArgs,
    /// The directory of GGUF files, as for `serve` [default: `models` in the data directory]
    #[arg(long, env = "ARTEL_MODELS", value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// Download nothing: what is not here is named in the catalog, and `artel fetch` downloads it later
    #[arg(long, env = "ARTEL_OFFLINE", value_parser = clap::builder::FalseyValueParser::new())]
    pub offline: bool,
}

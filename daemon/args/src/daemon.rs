//! The settings of a daemon: the flags of `serve` and of the commands that act like a daemon without starting one.

use std::env;
use std::path::PathBuf;

use clap::Args as Flags;

/// The settings of a daemon.
#[derive(Debug, Clone, Default, Flags)]
pub struct DaemonArgs {
    /// The settings file of the daemon, in YAML; flags and environment variables take precedence [default: none]
    #[arg(long, env = "ARTEL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The directory of the journal and other state [default: $XDG_DATA_HOME/artel or ~/.local/share/artel]
    #[arg(long, env = "ARTEL_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// A directory of roles, graphs and models that override the shipped ones [default: $XDG_CONFIG_HOME/artel/catalog or
    /// ~/.config/artel/catalog, if it exists]
    #[arg(long, value_name = "DIR")]
    pub catalog: Option<PathBuf>,
    /// The directory of GGUF files that are not beside the YAML that names them; downloads go to its subdirectory `hf`
    /// [default: `models` in the data directory]
    #[arg(long, env = "ARTEL_MODELS", value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// Download nothing: models with an `hf:` address must have been downloaded already
    #[arg(long, env = "ARTEL_OFFLINE", value_parser = clap::builder::FalseyValueParser::new())]
    pub offline: bool,
}

/// The data directory of a daemon that is told no other; `None` without a home directory.
pub fn default_data_dir() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")))?;
    Some(base.join("artel"))
}

//! `artel fetch`.

use clap::Args as Flags;

use crate::daemon::DaemonArgs;

/// `artel fetch`.
#[derive(Debug, Flags)]
pub struct FetchArgs {
    /// The settings of the daemon whose catalog is read.
    #[command(flatten)]
    pub daemon: DaemonArgs,
    /// The models to download, each with the adapters of its roles, and the adapters; none: every file that the catalog names
    pub names: Vec<String>,
}

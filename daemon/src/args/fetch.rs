//! `artel fetch`.

use clap::Args as Flags;

use super::DaemonArgs;

/// `artel fetch`.
#[derive(Debug, Flags)]
pub(crate) struct FetchArgs {
    /// The settings of the daemon whose catalog is read.
    #[command(flatten)]
    pub(crate) daemon: DaemonArgs,
    /// The models to download, each with the adapters of its roles; none: every file that the catalog names
    pub(crate) names: Vec<String>,
}

//! `artel fetch`.

use clap::Args as Flags;

use super::Setup;

/// `artel fetch`.
#[derive(Debug, Flags)]
pub(crate) struct Fetch {
    /// Whose catalog.
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// Models of the catalog, with the adapters of their roles; without any, everything that the catalog names
    pub(crate) names: Vec<String>,
}

//! `artel cert`.

use std::path::PathBuf;

use clap::{Args as Flags, Subcommand};

use crate::DataArgs;

/// `artel cert`.
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Make a certificate authority of one's own and a certificate for the daemon; or, with --client, one for a client.
    /// Existing files are never replaced
    Create(CertCreateArgs),
}

/// `artel cert create`.
#[derive(Debug, Flags)]
pub struct CertCreateArgs {
    /// The directory of the certificates and keys [default: `tls` in the data directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// A host name or IP address by which clients reach the daemon; may be repeated [default: the name and the addresses of
    /// this host]. `localhost`, 127.0.0.1 and ::1 are always included
    #[arg(long = "name", value_name = "HOST", conflicts_with = "client")]
    pub names: Vec<String>,
    /// How long the certificate is valid, in days; the authority itself is valid for ten years
    // The longest that the systems of Apple accept; a certificate does not outlive its authority.
    #[arg(long, value_name = "N", default_value = "825", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// Make a certificate for a client, signed by the authority that is in the directory. NAME is that of the client's token
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
    /// Where the state of the daemon is.
    #[command(flatten)]
    pub data: DataArgs,
}

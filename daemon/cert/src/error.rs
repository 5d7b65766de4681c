//! Why no certificate is made.

use std::io;
use std::path::PathBuf;

/// Why no certificate is made. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name is neither a host name nor an IP address.
    #[error("`{0}` is neither a host name nor an IP address: write a name such as `desk.local`, or an address")]
    HostName(String),
    /// A client's name cannot be that of a file.
    #[error(
        "`{0}` is no name of a client: it has 1 to 63 letters, digits, `-`, `_` and `.`, and begins with a letter or digit"
    )]
    ClientName(String),
    /// The addresses of this machine cannot be listed.
    #[error("failed to read the name and the addresses of this machine: {0}; write them with --name")]
    Host(#[source] nix::Error),
    /// There are such files already.
    #[error(
        "there is a certificate already, and nothing was changed: {}; move these files away for a new one", shown(.0)
    )]
    Exists(Vec<PathBuf>),
    /// There is half of an authority.
    #[error(
        "{missing} is missing, and {found} is there: the two belong together; put it back, or move the other one away"
    )]
    HalfAuthority {
        /// The file that is missing.
        missing: PathBuf,
        /// The file that is there.
        found: PathBuf,
    },
    /// There is no authority to sign for a client.
    #[error("there is no certificate authority in {0}: `artel cert create` makes one")]
    NoAuthority(PathBuf),
    /// A file of the authority cannot be read as such.
    #[error("{path} is not what this program wrote: {cause}")]
    InvalidAuthority {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: rcgen::Error,
    },
    /// The certificate of the authority is of another key.
    #[error("{certificate} and {key} do not belong together; put the right ones back, or move both away")]
    OtherKey {
        /// The certificate of the authority.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// The certificate cannot be made.
    #[error("failed to make the certificate: {0}")]
    Sign(#[source] rcgen::Error),
    /// A file cannot be read or written.
    #[error("failed to {action} {path}: {cause}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
}

fn shown(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(", ")
}

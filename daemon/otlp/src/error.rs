//! Why spans cannot be sent to a collector.

use std::io;
use std::path::PathBuf;

use crate::address::CollectorAddress;

/// Why spans cannot be sent to a collector.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of the headers cannot be read.
    #[error("failed to read the headers in {}: {source}", .path.display())]
    ReadHeaders {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of the file of the headers is none.
    #[error("{}:{line}: {fault}", .path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong. It does not quote the line, which may be secret.
        fault: CollectorHeaderFault,
    },
    /// The headers would be sent in the clear to another machine.
    #[error(
        "the headers of `traces.headers_file` would be sent to {0} in the clear: write `https://` in `traces.endpoint`, or leave them \
         out"
    )]
    ExposedHeaders(CollectorAddress),
    /// The file of the certificates cannot be read.
    #[error("failed to read the certificates in {}: {source}", .path.display())]
    ReadCertificates {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The certificates, or those of the system, cannot be used.
    #[error("failed to set up TLS for {address}: {source}")]
    Tls {
        /// The collector.
        address: CollectorAddress,
        /// Why.
        source: tonic::transport::Error,
    },
}

/// What is wrong with a line of the file of the headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CollectorHeaderFault {
    /// It has no colon.
    #[error("a header is `NAME: VALUE`")]
    NoColon,
    /// The name is none.
    #[error("the name of a header has letters a-z, digits, `-`, `_` and `.`, and does not end in `-bin`")]
    Name,
    /// The value is none.
    #[error("the value of a header is visible ASCII text")]
    Value,
}

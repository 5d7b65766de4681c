//! What interrupts a download for a while.

use artel_model::format_bytes;

/// Why an attempt ended early. The next one may succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Interruption {
    /// There is no connection to the server.
    #[error(
        "{server} cannot be reached: {cause}; without network access, download the file elsewhere and set `offline`, or set \
         HF_ENDPOINT to a mirror"
    )]
    Unreachable {
        /// The host name.
        server: String,
        /// The error of the connection.
        cause: String,
    },
    /// The server does not answer in time, or not in HTTP.
    #[error("{server} cannot be reached: {cause}")]
    NoAnswer {
        /// The host name.
        server: String,
        /// The error of the request.
        cause: String,
    },
    /// The server is overloaded or out of order.
    #[error("{server} answers {status}")]
    Status {
        /// The host name.
        server: String,
        /// The HTTP status.
        status: u16,
    },
    /// The connection broke while bytes were received.
    #[error("the connection broke after {}: {cause}", format_bytes(*.done_bytes))]
    Broken {
        /// Bytes of the file that are on disk.
        done_bytes: u64,
        /// The error of the connection.
        cause: String,
    },
    /// The server sent less than it announced.
    #[error("the response ended after {} of {}", format_bytes(*.done_bytes), format_bytes(*.total_bytes))]
    EndedEarly {
        /// Bytes of the file that are on disk.
        done_bytes: u64,
        /// Bytes of the whole file.
        total_bytes: u64,
    },
    /// The server sent other bytes than those that are missing.
    #[error("the server sent another range than requested")]
    OtherRange,
}

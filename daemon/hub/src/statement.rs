//! What the hub states of a file without sending it.

/// What the hub states of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HubStatement {
    /// Its size, if stated.
    pub size_bytes: Option<u64>,
    /// Its SHA-256 in hexadecimal digits, if stated: the hub does for large files.
    pub sha256: Option<String>,
}

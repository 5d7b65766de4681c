//! What the hub states of a file without sending it.

/// What the hub states of a file, or of a model in pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HubStatement {
    /// Its size, if stated.
    pub size_bytes: Option<u64>,
    /// Its SHA-256 in hexadecimal digits, if stated: the hub does for large files. None for several pieces.
    pub sha256: Option<String>,
}

impl HubStatement {
    /// That of a model, from those of its pieces: the sum of the sizes, if all are stated.
    pub(crate) fn of_pieces(pieces: Vec<Self>) -> Self {
        let size_bytes = pieces.iter().map(|piece| piece.size_bytes).try_fold(0u64, |sum, size| sum.checked_add(size?));
        let sha256 = match <[Self; 1]>::try_from(pieces) {
            Ok([whole]) => whole.sha256,
            Err(_) => None,
        };
        Self { size_bytes, sha256 }
    }
}

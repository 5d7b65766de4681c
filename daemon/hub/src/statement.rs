//! What the hub states of a file without sending it.

use crate::commit::RepoCommit;
use crate::partial_file::FileValidators;

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
    pub(crate) fn of_pieces(pieces: &[FileStatement]) -> Self {
        let size_bytes = pieces.iter().map(|piece| piece.size_bytes).try_fold(0u64, |sum, size| sum.checked_add(size?));
        let sha256 = match pieces {
            [whole] => whole.sha256().map(str::to_owned),
            _ => None,
        };
        Self { size_bytes, sha256 }
    }
}

/// What the hub states of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FileStatement {
    pub(crate) size_bytes: Option<u64>,
    pub(crate) validators: FileValidators,
    /// The commit that the file is from.
    pub(crate) commit: Option<RepoCommit>,
}

impl FileStatement {
    /// Its SHA-256, if stated.
    pub(crate) fn sha256(&self) -> Option<&str> {
        self.validators.linked.as_deref().filter(|tag| is_sha256(tag))
    }

    /// Whether this and another statement cannot be of the same version of the file.
    pub(crate) fn contradicts(&self, other: &Self) -> bool {
        fn differ<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
            one.zip(other).is_some_and(|(one, other)| one != other)
        }
        let (own, others) = (&self.validators, &other.validators);
        let has_tags = own.linked.is_some() && others.linked.is_some();
        differ(self.commit.as_ref(), other.commit.as_ref())
            || differ(self.size_bytes.as_ref(), other.size_bytes.as_ref())
            || differ(own.linked.as_ref(), others.linked.as_ref())
            // The tag of a server of large files says less than the hash of the hub.
            || (!has_tags && differ(own.etag.as_ref(), others.etag.as_ref()))
    }
}

/// Whether an ETag is the hash of the file, as it is for large files.
fn is_sha256(tag: &str) -> bool {
    tag.len() == 64 && tag.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_contradict_each_other_in_what_both_say() {
        let linked = |tag: &str| FileValidators { linked: Some(tag.to_owned()), ..FileValidators::default() };
        let tagged = |tag: &str| FileValidators { etag: Some(tag.to_owned()), ..FileValidators::default() };
        let of = |validators| FileStatement { validators, ..FileStatement::default() };
        let sized = |size| FileStatement { size_bytes: Some(size), ..FileStatement::default() };
        assert!(sized(1).contradicts(&sized(2)) && !sized(1).contradicts(&of(linked("a"))));
        assert!(of(linked("a")).contradicts(&of(linked("b"))) && of(tagged("a")).contradicts(&of(tagged("b"))));
        assert!(!of(linked("a")).contradicts(&of(tagged("b"))));
        let both = |tag: &str| of(FileValidators { etag: Some(tag.to_owned()), ..linked("a") });
        assert!(!both("v1").contradicts(&both("v2")));
        let at =
            |digit: &str| FileStatement { commit: RepoCommit::parse(&digit.repeat(40)), ..FileStatement::default() };
        assert!(at("a").contradicts(&at("b")) && !at("a").contradicts(&at("x")));
    }
}

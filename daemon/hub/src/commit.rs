//! Commits of repositories: what a revision such as `main` means at a moment.

/// The lengths of the hashes of git, SHA-1 and SHA-256, in hexadecimal digits.
const HASH_CHARS: [usize; 2] = [40, 64];

/// A commit of a repository of the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RepoCommit(String);

impl RepoCommit {
    /// Reads what the hub or a file says; none if it is no commit, and so not fit for the path of a request.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_hash = HASH_CHARS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

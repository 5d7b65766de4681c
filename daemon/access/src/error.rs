//! What can go wrong with tokens.

use std::io;
use std::path::PathBuf;

use artel_task::CallerName;

/// Why a token cannot be made, found or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of tokens cannot be read or written.
    #[error("cannot access the file of tokens {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file does not hold tokens.
    #[error("{} does not hold tokens: {cause}; correct it, or remove it and make the tokens anew", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A token is revoked, but not on disk.
    #[error("token `{name}` is revoked until the daemon restarts: its file cannot be written; revoke it again")]
    NotDurable {
        /// The token.
        name: CallerName,
        /// Why the file was not written.
        source: Box<Error>,
    },
    /// There is no such token.
    #[error("there is no token `{0}`")]
    NoToken(String),
    /// Another token has the name.
    #[error("there is a token `{0}` already; revoke it first, or choose another name")]
    NameTaken(CallerName),
    /// The name stands for the user whose daemon it is.
    #[error("the name `{0}` is that of the user whose daemon it is")]
    ReservedName(CallerName),
    /// A token without a scope is good for nothing.
    #[error("a token needs at least one scope")]
    NoScopes,
    /// A token that has ended already is good for nothing.
    #[error("a token cannot have ended already: its time must be longer than zero")]
    NoLifetime,
    /// There are as many tokens as there may be.
    #[error("there are {0} tokens, which is the limit; revoke those that are not used")]
    TooManyTokens(usize),
}

//! What was asked of a server.

use std::fmt;

/// What was asked of a server, as errors name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// To describe the collection.
    Describe,
    /// To create it.
    Create,
    /// To create the index of a field of payloads.
    CreateFieldIndex,
    /// To list points.
    List,
    /// To write points.
    Write,
    /// To delete points.
    Delete,
    /// To search points.
    Search,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Describe => "describe the collection",
            Self::Create => "create the collection",
            Self::CreateFieldIndex => "create an index of the collection",
            Self::List => "list points of the collection",
            Self::Write => "write points of the collection",
            Self::Delete => "delete points of the collection",
            Self::Search => "search the collection",
        })
    }
}

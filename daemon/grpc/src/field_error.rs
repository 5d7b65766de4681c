//! Why a field of a request is refused.

use std::fmt::Display;

use artel_task::portable::{self, MAX_EXACT_INTEGER};

/// The fault of a field; a message begins after the field's name, as in `input: is empty`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum FieldError {
    #[error("is empty")]
    Empty,
    #[error("has {bytes} bytes, the limit is {limit}")]
    TooLong { bytes: usize, limit: usize },
    #[error("all texts have {bytes} bytes together, the limit is {limit}")]
    TooLongTogether { bytes: usize, limit: usize },
    #[error("is {dimensions}, and the vectors of this model have {limit} numbers")]
    TooManyDimensions { dimensions: usize, limit: usize },
    #[error("has {entries} entries, the limit is {limit}")]
    TooManyEntries { entries: usize, limit: usize },
    #[error("a key has 1 to {limit} bytes, one has {bytes}")]
    LabelKey { bytes: usize, limit: usize },
    #[error("a value has up to {limit} bytes, that of `{key}` has {bytes}")]
    LabelValue { key: String, bytes: usize, limit: usize },
    #[error("is {tokens} tokens, the limit is {limit}")]
    TooManyTokens { tokens: u32, limit: u32 },
    #[error("a request id has 1 to 128 printable ASCII characters without spaces")]
    RequestId,
    #[error("unknown priority {0}")]
    UnknownPriority(i32),
    #[error("unknown kind of input {0}")]
    UnknownInputKind(i32),
    #[error("unknown way to search {0}")]
    UnknownSearchMode(i32),
    #[error("unknown signal; the signals are {}", .known.join(", "))]
    UnknownSignal { known: Vec<&'static str> },
    #[error("`{0}` is not a top-level field of Task")]
    UnknownTaskField(String),
    #[error("a path has 1 to {limit} bytes, this one has {bytes}")]
    PathLength { bytes: usize, limit: usize },
    #[error("a path must be relative and separated by `/`, without empty, `.` or `..` parts")]
    PathForm,
    #[error("a path must end in `.yaml` or `.yml`")]
    PathEnding,
    #[error("duplicate path `{0}`")]
    DuplicatePath(String),
    #[error(transparent)]
    NotPortable(#[from] portable::Error),
    #[error("is no JSON that can be sent: {0}")]
    NotJson(String),
    #[error("{}{number} is not a JSON number", at(.place))]
    NotJsonNumber { place: String, number: f64 },
    #[error(
        "{}{number:?} may be a rounded integer: doubles are exact up to ±{MAX_EXACT_INTEGER}, write it as a string",
        at(.place)
    )]
    InexactNumber { place: String, number: f64 },
}

impl FieldError {
    /// The error of a number inside a part of a value: its place begins with that part.
    pub(crate) fn inside(self, part: impl Display) -> Self {
        let outer = |place: String| format!("/{}{place}", part.to_string().replace('~', "~0").replace('/', "~1"));
        match self {
            Self::NotJsonNumber { place, number } => Self::NotJsonNumber { place: outer(place), number },
            Self::InexactNumber { place, number } => Self::InexactNumber { place: outer(place), number },
            other => other,
        }
    }
}

/// A place in a value for the beginning of a message; nothing for the value itself.
fn at(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!("at {place}: ") }
}

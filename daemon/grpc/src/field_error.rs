//! Why a field of a request is refused.

/// The fault of a field; a message begins after the field's name, as in `input: is empty`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum FieldError {
    #[error("is empty")]
    Empty,
    #[error("has {bytes} bytes, the limit is {limit}")]
    TooLong { bytes: usize, limit: usize },
    #[error("has {entries} entries, the limit is {limit}")]
    TooManyEntries { entries: usize, limit: usize },
    #[error("a key has 1 to {limit} bytes, one has {bytes}")]
    LabelKey { bytes: usize, limit: usize },
    #[error("a value has up to {limit} bytes, that of `{key}` has {bytes}")]
    LabelValue { key: String, bytes: usize, limit: usize },
    #[error("a request id has 1 to 128 printable ASCII characters without spaces")]
    RequestId,
    #[error("unknown priority {0}")]
    UnknownPriority(i32),
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
    #[error("nests deeper than {limit}")]
    NestsTooDeep { limit: usize },
    #[error("{0} is not a JSON number")]
    NotJsonNumber(f64),
}

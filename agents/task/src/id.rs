//! Ids and names, each a newtype.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod step;

pub use step::{MAX_DEPTH, PathSegment, StepId, Visit};

/// The longest name of a role, graph, model or node, in bytes: a DNS label, so that names fit into URLs and metrics.
pub const MAX_NAME_BYTES: usize = 63;
/// The longest request id that a client may choose, in bytes: enough for any UUID or hash with a prefix.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

/// A text that is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: names have 1 to {MAX_NAME_BYTES} characters: a letter a-z, then a-z, 0-9, `_` and `-`")]
pub struct InvalidName(pub String);

fn parse(text: &str) -> Result<Arc<str>, InvalidName> {
    let invalid = || InvalidName(text.chars().take(MAX_NAME_BYTES + 1).collect());
    let mut bytes = text.bytes();
    let first = bytes.next().ok_or_else(invalid)?;
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    if text.len() > MAX_NAME_BYTES || !first.is_ascii_lowercase() || !bytes.all(allowed) {
        return Err(invalid());
    }
    Ok(text.into())
}

macro_rules! name {
    ($(#[$doc:meta])* $Name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $Name(Arc<str>);

        impl $Name {
            /// Accepts `[a-z][a-z0-9_-]{0,62}`.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                parse(text).map(Self)
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $Name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::parse(&text)
            }
        }

        impl From<$Name> for String {
            fn from(name: $Name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl std::borrow::Borrow<str> for $Name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($Name), self.0)
            }
        }
    };
}

name!(
    /// The name of a role.
    RoleName
);
name!(
    /// The name of a graph.
    GraphName
);
name!(
    /// The name of a model.
    ModelName
);
name!(
    /// The name of an adapter.
    AdapterName
);
name!(
    /// The name of files that roles may answer from.
    KnowledgeName
);
name!(
    /// The name of a training of a role.
    TrainingName
);

name!(
    /// The name of a node of a graph.
    NodeName
);
name!(
    /// The name of a value that the nodes of a graph share.
    ValueName
);
name!(
    /// The name of a router, that is, of its settings.
    RouterName
);
name!(
    /// The name of a caller: of a token, or `owner` for the user whose daemon it is. Tasks carry that of who submitted them.
    CallerName
);

impl CallerName {
    /// The user whose daemon it is: on the socket by the credentials of the process, elsewhere by the token in the data directory.
    pub fn owner() -> Self {
        Self(Arc::from("owner"))
    }

    /// Whether it is that user.
    pub fn is_owner(&self) -> bool {
        *self.0 == *"owner"
    }
}

/// A task's id: a UUID of version 7, so ids sort by the time of acceptance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(uuid::Uuid);

impl TaskId {
    /// A new id from the time in milliseconds since 1970 and ten random bytes; the caller supplies both, since this crate
    /// knows no clock.
    pub fn new(unix_millis: u64, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_millis, &random).into_uuid())
    }

    /// Parses the hyphenated form that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        uuid::Uuid::try_parse(text).ok().map(Self)
    }

    /// The time of the id in milliseconds since 1970, which is that of the acceptance.
    pub fn unix_millis(&self) -> u64 {
        let [a, b, c, d, e, f, ..] = *self.as_bytes();
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The sixteen bytes, in the order in which ids sort.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id of these sixteen bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({})", self.0)
    }
}

/// A client's idempotency key for a submission: repeating it returns the same task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(String);

impl RequestId {
    /// Accepts 1 to [`MAX_REQUEST_ID_BYTES`] printable ASCII characters.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= MAX_REQUEST_ID_BYTES;
        (fits && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The content hash of a catalog, 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CatalogVersion(Arc<str>);

impl CatalogVersion {
    /// Wraps a hash that the catalog computed.
    pub fn new(hex: impl Into<Arc<str>>) -> Self {
        Self(hex.into())
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, for display.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

/// The sequence number of an event in its task: 1, 2, 3 and so on without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The next number.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "gguf", "rag-2_x", &"a".repeat(63)] {
            assert_eq!(RoleName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "A", "1a", "a b", "ä", "a/b", &"a".repeat(64)] {
            assert!(RoleName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn task_ids_sort_by_time_and_survive_text() {
        let early = TaskId::new(1_700_000_000_000, [255; 10]);
        let late = TaskId::new(1_700_000_000_001, [0; 10]);
        assert!(early < late && early.unix_millis() == 1_700_000_000_000);
        assert_eq!(TaskId::parse(&early.to_string()), Some(early));
        assert_eq!(TaskId::parse("not an id"), None);
        assert_eq!(late.unix_millis(), 1_700_000_000_001);
    }
}

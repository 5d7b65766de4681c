//! A point: an id, a vector and what is known of its text.

use std::collections::BTreeMap;
use std::fmt;

use uuid::Uuid;

/// The id of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PointId(Uuid);

impl PointId {
    /// From any 16 bytes; Qdrant takes those of every version of UUID.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From the text of a UUID.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }
}

impl From<Uuid> for PointId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl From<PointId> for Uuid {
    fn from(id: PointId) -> Self {
        id.0
    }
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

/// A point as it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPoint {
    /// Its id; a point of the same id is replaced.
    pub id: PointId,
    /// Its vector, of any length but zero.
    pub vector: Vec<f32>,
    /// Its text, `page_content` of the payload.
    pub text: String,
    /// What is known of the text, `metadata` of the payload.
    pub metadata: PointMetadata,
}

/// What is known of the text of a point.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PointMetadata {
    /// The knowledge that it is part of.
    pub knowledge: String,
    /// The path of its file, or the id of its text.
    pub source: String,
    /// Its page, from 1.
    pub page: Option<u32>,
    /// Its first line, from 1. Both lines are one list in the payload, `lines`.
    pub first_line: u32,
    /// Its last line, included.
    pub last_line: u32,
    /// The headings above it, from the outermost.
    pub context: Vec<String>,
    /// The labels of its source.
    pub labels: BTreeMap<String, String>,
    /// The caller that it belongs to.
    pub owner: String,
    /// The embedding model of the vector.
    pub model: String,
}

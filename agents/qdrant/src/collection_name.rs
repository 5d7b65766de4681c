//! The name of a collection.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name that Qdrant takes, in bytes: it is the name of a directory there.
const MAX_NAME_BYTES: usize = 255;

/// The name of a collection, as Qdrant takes it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CollectionName(Arc<str>);

/// A text that cannot be the name of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of a collection of Qdrant has 1 to {MAX_NAME_BYTES} bytes, none of the characters `<>:\"/\\|?*` and no control \
     characters, and is not `.` or `..`"
)]
pub struct InvalidCollectionName;

impl FromStr for CollectionName {
    type Err = InvalidCollectionName;

    fn from_str(text: &str) -> Result<Self, InvalidCollectionName> {
        let is_refused = |c: char| c.is_control() || "<>:\"/\\|?*".contains(c);
        let is_directory = matches!(text, "." | "..");
        if text.is_empty() || text.len() > MAX_NAME_BYTES || is_directory || text.contains(is_refused) {
            return Err(InvalidCollectionName);
        }
        Ok(Self(text.into()))
    }
}

impl CollectionName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_a_directory() {
        for text in ["artel", "artel-docs_2", "документы", "two words", &"x".repeat(MAX_NAME_BYTES)] {
            assert_eq!(text.parse::<CollectionName>().unwrap().as_str(), text);
        }
        for text in ["", ".", "..", "a/b", "a\\b", "a:b", "a\nb", &"x".repeat(MAX_NAME_BYTES + 1)] {
            assert_eq!(text.parse::<CollectionName>(), Err(InvalidCollectionName), "{text}");
        }
    }
}

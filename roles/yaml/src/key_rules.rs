//! What the keys of a document from elsewhere may hold.

use std::path::Path;

use crate::node::YamlNode;

/// Decides for each key of each map of a document whether it may hold what it does.
pub trait KeyRules {
    /// Why a key of a kind of map may not hold this value, if that is so. `dir` is the directory that relative names are looked up in.
    fn refusal(&self, set: &str, key: &str, value: &YamlNode, dir: &Path) -> Option<KeyRefusal>;
}

/// Why a key may not hold what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRefusal {
    /// The reason; a text that begins after the name of the key.
    pub reason: String,
    /// What to do.
    pub hint: &'static str,
}

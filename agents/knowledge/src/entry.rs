//! An entry of a base: a file, or a text that was handed in.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use artel_task::CallerName;
use sha2::{Digest as _, Sha256};

/// The name of an entry within its base: the absolute path of a file, or the id of a text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryKey(String);

/// What the keys of texts begin with; paths begin with a slash.
const TEXT_PREFIX: &str = "text:";

impl EntryKey {
    /// The key of a file; `None` unless its path is absolute and UTF-8.
    pub fn file(path: &Path) -> Option<Self> {
        path.to_str().filter(|_| path.is_absolute()).map(|path| Self(path.to_owned()))
    }

    /// The key of a text that was handed in.
    pub fn text(id: &str) -> Self {
        Self(format!("{TEXT_PREFIX}{id}"))
    }

    pub(crate) fn stored(key: String) -> Self {
        Self(key)
    }

    /// The path, if it is a file.
    pub fn path(&self) -> Option<&Path> {
        self.0.starts_with('/').then(|| Path::new(&self.0))
    }

    /// The id, if it is a text.
    pub fn text_id(&self) -> Option<&str> {
        self.0.strip_prefix(TEXT_PREFIX)
    }

    /// As it is stored and shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for EntryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The hash of a content or of an embedded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// SHA-256 of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    pub(crate) fn stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// What the file system tells of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FileStat {
    /// Its size.
    pub bytes: u64,
    /// The time of its last change in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Its number in its file system, which it keeps when it is moved.
    pub inode: u64,
}

/// The labels of a source.
pub type EntryLabels = BTreeMap<String, String>;

/// What is known of an entry besides its chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryMeta {
    /// The source that it came from.
    pub source: String,
    /// The caller that it belongs to.
    pub owner: CallerName,
    /// The labels of its source.
    pub labels: EntryLabels,
    /// The hash of its content.
    pub hash: ContentHash,
    /// Its size and times when it was read.
    pub stat: FileStat,
    /// Whether it was changed so shortly before it was read that a later change may have left size and time as they are.
    pub is_fresh: bool,
}

/// An entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its name.
    pub key: EntryKey,
    /// What is known of it.
    pub meta: EntryMeta,
    /// Why it could not be read; it is tried again when its content is another.
    pub reason: Option<String>,
    /// The number of its chunks.
    pub chunks: u32,
}

/// A text that a client handed in, which is kept so that it can be indexed anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedText {
    /// Its name within the base.
    pub id: String,
    /// The file name by which its format is told, such as `note.md`.
    pub name: String,
    /// The text.
    pub text: String,
    /// The caller that it belongs to.
    pub owner: CallerName,
    /// Labels to filter by.
    pub labels: EntryLabels,
}

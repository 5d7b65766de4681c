//! Files that take the place of others under the same path.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// What tells a file from another one under the same path, or from itself before it was written again: where it is, its size, and
/// when it was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileVersion {
    file: (u64, u64),
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// The same of its metadata: a file can be given any time of modification.
    changed: (i64, i64),
}

impl FileVersion {
    /// The versions of these files as they are now; none of one that is not there.
    pub(crate) fn of_each<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Vec<Option<Self>> {
        let version = |path: &PathBuf| {
            let file = fs::metadata(path).ok()?;
            Some(Self {
                file: (file.dev(), file.ino()),
                bytes: file.len(),
                modified: (file.mtime(), file.mtime_nsec()),
                changed: (file.ctime(), file.ctime_nsec()),
            })
        };
        paths.map(version).collect()
    }
}

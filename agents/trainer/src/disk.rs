//! The space that a directory takes.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The bytes of a block as `st_blocks` counts them, whatever the file system's own are.
const BLOCK_BYTES: u64 = 512;

/// What is in a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DirUsage {
    /// What it takes on the disk; a file with several names counts once.
    pub(crate) bytes: u64,
    /// Its files and directories; a file with several names counts with each.
    pub(crate) entries: u64,
}

impl DirUsage {
    /// Adds what is in a directory. What cannot be read, as it may be removed meanwhile, counts as nothing.
    fn add(&mut self, dir: &Path, seen: &mut HashSet<(u64, u64)>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            self.entries += 1;
            if metadata.nlink() < 2 || metadata.is_dir() || seen.insert((metadata.dev(), metadata.ino())) {
                self.bytes += metadata.blocks() * BLOCK_BYTES;
            }
            if metadata.is_dir() {
                self.add(&entry.path(), seen);
            }
        }
    }
}

/// Measures a directory, with all below it.
pub(crate) fn usage(dir: &Path) -> DirUsage {
    let mut usage = DirUsage::default();
    usage.add(dir, &mut HashSet::new());
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_takes_its_space_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        let file = dir.path().join("a/file");
        fs::write(&file, vec![1; 1 << 20]).unwrap();
        let before = usage(dir.path());
        fs::hard_link(&file, dir.path().join("b")).unwrap();
        let after = usage(dir.path());
        assert!(before.bytes >= 1 << 20 && before.entries == 2, "{before:?}");
        assert_eq!((after.bytes, after.entries), (before.bytes, 3));
    }
}

//! What disks have left.

use std::path::Path;

use nix::sys::statvfs::statvfs;

/// Bytes of a disk that we do not fill with what can be had again: the journal may lie there too.
pub(crate) const SPARE: u64 = 64 << 20;

/// Bytes that an ordinary user may still write on the disk of a path, or of the nearest directory above it that exists.
pub(crate) fn free(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|dir| dir.is_dir())?;
    let disk = statvfs(there).ok()?;
    Some(disk.blocks_available() * disk.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_yet_has_the_disk_of_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free(&dir.path().join("not/there")).unwrap() > 0);
    }
}

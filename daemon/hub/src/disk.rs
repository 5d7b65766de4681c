//! Free disk space.

use std::path::Path;

use nix::sys::statvfs::statvfs;

/// Disk space that downloads and dequantized models leave free: the journal may be on the same disk.
pub const RESERVED_BYTES: u64 = 64 << 20;

/// Bytes that an unprivileged user can still write to the disk of a path, or of its nearest existing ancestor directory.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|dir| dir.is_dir())?;
    let disk = statvfs(existing).ok()?;
    Some(disk.blocks_available() * disk.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_has_the_disk_of_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_bytes(&dir.path().join("not/there")).unwrap() > 0);
    }
}

//! Files that are there as a whole, their hashes, and the space that is left for them. All functions block on the disk.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod whole_file;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use sha2::{Digest as _, Sha256};

/// Bytes that are hashed at once.
const HASH_CHUNK_BYTES: usize = 1 << 20;

/// Bytes that an unprivileged user can still write to the disk of a path, or of its nearest existing ancestor directory.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let disk = statvfs(path.ancestors().find(|dir| dir.is_dir())?).ok()?;
    Some(disk.blocks_available() * disk.fragment_size())
}

/// The SHA-256 of files one after the other, in hexadecimal digits.
///
/// # Errors
/// One of them cannot be read.
pub fn sha256(paths: &[PathBuf]) -> io::Result<String> {
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; HASH_CHUNK_BYTES]);
    for path in paths {
        let mut file = File::open(path)?;
        loop {
            match file.read(&mut chunk)? {
                0 => break,
                read => hash.update(&chunk[..read]),
            }
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Forces the entries of a directory to the disk: what was renamed there survives a crash of the machine.
///
/// # Errors
/// The system refuses.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_yet_has_the_disk_of_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_bytes(&dir.path().join("not/there")).unwrap() > 0);
    }

    #[test]
    fn a_hash_is_that_of_all_bytes_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| dir.path().join(name));
        std::fs::write(&paths[0], "ab").unwrap();
        std::fs::write(&paths[1], "c").unwrap();
        // The first example of FIPS 180.
        assert_eq!(sha256(&paths).unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(sha256(&[dir.path().join("c")]).is_err());
    }
}

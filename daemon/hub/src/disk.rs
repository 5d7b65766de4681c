//! Free disk space, and how much of it running downloads will take.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use artel_files::free_bytes;

/// Disk space that downloads and dequantized models leave free: the journal may be on the same disk.
pub const RESERVED_BYTES: u64 = 64 << 20;

/// Tells how many bytes can be written to the disk of a path, if that is known.
type FreeBytes = Box<dyn Fn(&Path) -> Option<u64> + Send + Sync>;

/// The disks to which the downloads of a process write. What several of them still need is summed: each alone would find the same space
/// free.
pub(crate) struct DiskSpace {
    /// [`free_bytes`], but in tests of full disks.
    free_bytes: FreeBytes,
    claims: Mutex<HashMap<PathBuf, Claim>>,
}

/// What a download of a known size still needs.
struct Claim {
    /// The number of its disk; none if there is no directory yet that tells.
    device: Option<u64>,
    bytes: u64,
}

/// The claims of some files, which end when this is dropped.
pub(crate) struct SpaceClaims<'d> {
    disk: &'d DiskSpace,
    files: Vec<PathBuf>,
}

/// A lack of space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpaceShortage {
    /// What is claimed.
    pub(crate) missing_bytes: u64,
    /// What is free.
    pub(crate) free_bytes: u64,
    /// What other downloads will take of it.
    pub(crate) claimed_bytes: u64,
}

impl Default for DiskSpace {
    fn default() -> Self {
        Self::new(free_bytes)
    }
}

impl DiskSpace {
    /// A disk of which this tells the free space.
    pub(crate) fn new(free_bytes: impl Fn(&Path) -> Option<u64> + Send + Sync + 'static) -> Self {
        Self { free_bytes: Box::new(free_bytes), claims: Mutex::default() }
    }

    /// Claims space for files of one directory, in place of earlier claims of theirs.
    ///
    /// # Errors
    /// There is less than they and the other downloads need.
    pub(crate) fn claim(&self, files: Vec<(PathBuf, u64)>) -> Result<SpaceClaims<'_>, SpaceShortage> {
        let mut claims = self.claims();
        if let Some((path, _)) = files.first() {
            let device = device(path);
            let is_other =
                |other: &PathBuf, claim: &Claim| claim.device == device && !files.iter().any(|(path, _)| path == other);
            let others = claims.iter().filter(|(path, claim)| is_other(path, claim)).map(|(_, claim)| claim.bytes);
            let claimed_bytes = others.fold(0, u64::saturating_add);
            let missing_bytes = files.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
            let free_bytes = self.free(path);
            let room_bytes = free_bytes.saturating_sub(RESERVED_BYTES).saturating_sub(claimed_bytes);
            if missing_bytes > room_bytes {
                return Err(SpaceShortage { missing_bytes, free_bytes, claimed_bytes });
            }
            claims.extend(files.iter().map(|(path, bytes)| (path.clone(), Claim { device, bytes: *bytes })));
        }
        let files = files.into_iter().map(|(path, _)| path).collect();
        Ok(SpaceClaims { disk: self, files })
    }

    /// Says that so many bytes of a file are written next, and no longer to come. Said afterwards, they would count twice in a claim made
    /// in between, and a download that fits would be refused; said before, they may count not at all for a moment, which
    /// [`RESERVED_BYTES`] cover.
    pub(crate) fn writes(&self, path: &Path, bytes: u64) {
        if let Some(claim) = self.claims().get_mut(path) {
            claim.bytes = claim.bytes.saturating_sub(bytes);
        }
    }

    /// Bytes that are free on the disk of a path; the most there can be if that is not known.
    pub(crate) fn free(&self, path: &Path) -> u64 {
        (self.free_bytes)(path).unwrap_or(u64::MAX)
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<PathBuf, Claim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SpaceClaims<'_> {
    fn drop(&mut self) {
        let mut claims = self.disk.claims();
        for path in &self.files {
            claims.remove(path);
        }
    }
}

fn device(path: &Path) -> Option<u64> {
    path.ancestors().find(|dir| dir.is_dir())?.metadata().ok().map(|dir| dir.dev())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_downloads_still_need_is_not_free() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        let disk = DiskSpace::new(|_| Some(RESERVED_BYTES + 100));
        let first = disk.claim(vec![(a.clone(), 70)]).unwrap();
        let shortage = disk.claim(vec![(b.clone(), 31)]).err();
        let expected = SpaceShortage { missing_bytes: 31, free_bytes: RESERVED_BYTES + 100, claimed_bytes: 70 };
        assert_eq!(shortage, Some(expected));
        drop(disk.claim(vec![(b.clone(), 30)]).unwrap());
        disk.writes(&a, 50);
        drop(disk.claim(vec![(b.clone(), 80)]).unwrap());
        drop(first);
        // A claim takes the place of an earlier one.
        let _all = disk.claim(vec![(a.clone(), 50), (b.clone(), 50)]).unwrap();
        assert!(disk.claim(vec![(b, 51)]).is_err() && disk.claim(vec![(a, 50)]).is_ok());
    }
}

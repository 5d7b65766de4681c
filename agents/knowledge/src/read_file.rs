//! Reading a file that may change meanwhile.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::OFlag;

use crate::entry::FileStat;
use crate::source::{file_stat, is_missing};

/// A file that was changed within this time before it was read may have been changed again without another time: some file
/// systems keep times in steps of two seconds.
const FRESH_PERIOD: Duration = Duration::from_millis(2100);

/// A file as it was at one time.
#[derive(Debug)]
pub(crate) struct FileContent {
    pub(crate) bytes: Vec<u8>,
    pub(crate) stat: FileStat,
    pub(crate) is_fresh: bool,
}

/// Why a file was not read.
#[derive(Debug)]
pub(crate) enum FileReadError {
    /// It is not there, or no longer a file.
    Missing,
    /// It changed while it was read.
    Changed,
    /// It is larger than the limit.
    TooLarge(FileStat),
    /// The system does not let it be read.
    Unreadable(io::Error),
}

/// Reads a file of at most `limit` bytes. Links are not followed, and nothing is waited for that is no file.
pub(crate) fn read_file(path: &Path, limit: u64) -> Result<FileContent, FileReadError> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = opened.map_err(|error| {
        let is_link = error.raw_os_error() == Some(nix::libc::ELOOP);
        if is_link || is_missing(&error) { FileReadError::Missing } else { FileReadError::Unreadable(error) }
    })?;
    let before = stat(&file)?;
    if before.bytes > limit {
        return Err(FileReadError::TooLarge(before));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(before.bytes).unwrap_or_default());
    (&file).take(limit + 1).read_to_end(&mut bytes).map_err(FileReadError::Unreadable)?;
    let after = stat(&file)?;
    if after != before || bytes.len() as u64 != before.bytes {
        return Err(FileReadError::Changed);
    }
    Ok(FileContent { bytes, stat: before, is_fresh: is_fresh(before) })
}

fn stat(file: &File) -> Result<FileStat, FileReadError> {
    let meta = file.metadata().map_err(FileReadError::Unreadable)?;
    if meta.is_file() { Ok(file_stat(&meta)) } else { Err(FileReadError::Missing) }
}

/// Whether the last change was just now, or in the future of this clock.
fn is_fresh(stat: FileStat) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX).saturating_sub(stat.mtime_ns);
    since < i64::try_from(FRESH_PERIOD.as_nanos()).expect("it is two seconds")
}

/// Whether a path still is the file that was read, as it was.
pub(crate) fn is_unchanged(path: &Path, stat: FileStat) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_file() && file_stat(&meta) == stat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_or_too_large_is_refused_at_once() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("a"), "12345").unwrap();
        let content = read_file(&path("a"), 5).unwrap();
        assert_eq!((content.bytes.as_slice(), content.is_fresh), (b"12345".as_slice(), true));
        assert!(is_unchanged(&path("a"), content.stat));
        assert!(matches!(read_file(&path("a"), 4), Err(FileReadError::TooLarge(stat)) if stat.bytes == 5));
        File::create(path("sparse")).unwrap().set_len(2 << 30).unwrap();
        assert!(matches!(read_file(&path("sparse"), 1 << 20), Err(FileReadError::TooLarge(_))));
        std::os::unix::fs::symlink(path("a"), path("link")).unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["gone", "link", "pipe", "."] {
            assert!(matches!(read_file(&path(name), 5), Err(FileReadError::Missing)), "{name}");
        }
        std::fs::write(path("a"), "123").unwrap();
        assert!(!is_unchanged(&path("a"), content.stat));
    }
}

//! The copies of damaged journals that repairs make beside the new one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use artel_task::event::Timestamp;

use crate::dir;

/// The directory of a copy is called so, followed by the time of the repair in milliseconds.
const PREFIX: &str = "damaged-";

/// The directory in which a repair builds the new journal; what is left there is of a repair that was interrupted.
const UNFINISHED_REPAIR: &str = "repairing";

/// The directory for a copy that is made now.
pub(crate) fn path(dir: &Path, now: Timestamp) -> PathBuf {
    dir.join(format!("{PREFIX}{}", now.0))
}

/// The directory in which a repair builds the new journal.
pub(crate) fn unfinished(dir: &Path) -> PathBuf {
    dir.join(UNFINISHED_REPAIR)
}

/// Deletes the copies that were made at this time or later, and what an interrupted repair left. Returns the number of copies.
pub(crate) fn remove(dir: &Path, since: Timestamp) -> io::Result<u64> {
    let mut removed = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let made = entry.file_name().to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u64>().ok());
        if made.is_some_and(|made| made >= since.0) {
            fs::remove_dir_all(entry.path())?;
            removed += 1;
        }
    }
    match fs::remove_dir_all(unfinished(dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    dir::sync(dir)?;
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_from_the_time_on_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["damaged-5", "damaged-9", "damaged-10", "damaged-notes", "repairing", "models"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("journal.sqlite"), "text").unwrap();
        }
        assert_eq!(remove(dir.path(), Timestamp(9)).unwrap(), 2);
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["damaged-5", "damaged-notes", "models"]);
        assert_eq!(path(dir.path(), Timestamp(7)), dir.path().join("damaged-7"));
    }
}

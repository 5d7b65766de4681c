//! The directories of runs: each is there as a whole, or not at all.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_files::{sync_dir, whole_file};

use crate::cell::RunCell;
use crate::error::Error;
use crate::record::RunRecord;
use crate::run_id::RunId;

/// The file with the number of the last run: a number is not used again, even if its run is deleted.
const LAST_NUMBER_FILE: &str = "last-number";
/// What the names of directories end with that are being made.
const NEW: &str = "new";
/// What the names of directories end with that are being removed.
const DELETED: &str = "deleted";

/// The runs below a directory. What was left half made or half removed is removed. A run of which the record cannot be read is logged.
pub(crate) fn open_all(dir: &Path) -> io::Result<BTreeMap<RunId, Arc<RunCell>>> {
    let mut runs = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if is_remnant(&path) {
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::error!(path = %path.display(), %error, "failed to remove what is left of a training run");
            }
            continue;
        }
        let Some(id) = id_of(&path) else { continue };
        match RunRecord::read(&path) {
            Ok(record) if record.id == id => drop(runs.insert(id, Arc::new(RunCell::new(path, record)))),
            Ok(record) => {
                tracing::error!(path = %path.display(), id = %record.id, "a training run lies in the directory of another");
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "failed to read a training run; it is left as it is");
            }
        }
    }
    Ok(runs)
}

/// The number of the next run: above all that were ever given out.
pub(crate) fn next_number(dir: &Path) -> Result<u32, Error> {
    let path = dir.join(LAST_NUMBER_FILE);
    let last = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(Error::file(&path)(error)),
    };
    // A run whose record cannot be read has a number too.
    let entries = fs::read_dir(dir).map_err(Error::file(dir))?;
    let present = entries.flatten().filter_map(|entry| Some(id_of(&entry.path())?.number()));
    let number = present.fold(last, u32::max).saturating_add(1);
    whole_file::write(&path, |file| write!(file, "{number}")).map_err(Error::file(&path))?;
    Ok(number)
}

/// Makes the directory of a run with its record.
pub(crate) fn create(dir: &Path, record: &RunRecord) -> Result<PathBuf, Error> {
    let path = dir.join(record.id.as_str());
    let new = with_suffix(&path, NEW);
    let made = fs::create_dir(&new)
        .and_then(|()| record.write(&new))
        .and_then(|()| fs::rename(&new, &path))
        .and_then(|()| sync_dir(dir));
    if made.is_err() {
        // What cannot be removed now is when the daemon starts again.
        let _ = fs::remove_dir_all(&new);
    }
    made.map_err(Error::file(&path))?;
    Ok(path)
}

/// Removes the directory of a run.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let deleted = with_suffix(path, DELETED);
    fs::rename(path, &deleted).map_err(Error::file(path))?;
    if let Err(error) = fs::remove_dir_all(&deleted) {
        tracing::error!(path = %deleted.display(), %error, "failed to remove a deleted training run; the next daemon tries again");
    }
    Ok(())
}

fn id_of(path: &Path) -> Option<RunId> {
    RunId::parse(path.file_name()?.to_str()?)
}

fn is_remnant(path: &Path) -> bool {
    let is_of_run = path.file_stem().and_then(OsStr::to_str).is_some_and(|stem| RunId::parse(stem).is_some());
    is_of_run && path.extension().is_some_and(|suffix| suffix == NEW || suffix == DELETED)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_out_once() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(next_number(dir.path()).unwrap(), 1);
        assert_eq!(next_number(dir.path()).unwrap(), 2);
        fs::create_dir(dir.path().join("t.7")).unwrap();
        assert_eq!(next_number(dir.path()).unwrap(), 8);
        fs::remove_dir(dir.path().join("t.7")).unwrap();
        assert_eq!(next_number(dir.path()).unwrap(), 9);
    }

    #[test]
    fn what_was_left_in_the_middle_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["t.1.new", "t.2.deleted", "t.3", "other.new"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("file"), "x").unwrap();
        }
        assert!(open_all(dir.path()).unwrap().is_empty());
        let is_there = |name: &str| dir.path().join(name).exists();
        assert!(!is_there("t.1.new") && !is_there("t.2.deleted"));
        assert!(is_there("t.3") && is_there("other.new"), "these are no remnants of a run");
    }
}

//! Files that the daemon sends into a directory: all of them, or none.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Files that are being received. Each is called `NAME.new` until all are there. If this is dropped before, these are removed, and what was
/// in the directory is as it was.
#[derive(Debug)]
pub(crate) struct ReceivedFiles {
    dir: PathBuf,
    files: Vec<NewFile>,
}

/// A file that has not got its name yet.
#[derive(Debug)]
struct NewFile {
    path: PathBuf,
    new: PathBuf,
    file: File,
}

impl ReceivedFiles {
    /// Makes the directory, if it is missing.
    pub(crate) fn new(dir: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&dir).map_err(Error::file(&dir))?;
        Ok(Self { dir, files: Vec::new() })
    }

    /// Writes a part of a file. The parts of a file follow each other.
    pub(crate) fn write(&mut self, name: &str, data: &[u8]) -> Result<(), Error> {
        if Path::new(name).file_name().is_none_or(|plain| plain != name) {
            return Err(Error::UnsafeFileName(name.to_owned()));
        }
        let path = self.dir.join(name);
        let mut file = match self.files.pop_if(|file| file.path == path) {
            Some(file) => file,
            None => NewFile::create(path)?,
        };
        file.file.write_all(data).map_err(Error::file(&file.path))?;
        self.files.push(file);
        Ok(())
    }

    /// Gives all files their names, in place of those that were there.
    pub(crate) fn finish(self) -> Result<Vec<PathBuf>, Error> {
        if self.files.is_empty() {
            return Err(Error::IncompleteAnswer("files"));
        }
        for NewFile { path, file, .. } in &self.files {
            file.sync_all().map_err(Error::file(path))?;
        }
        for NewFile { path, new, .. } in &self.files {
            fs::rename(new, path).map_err(Error::file(path))?;
        }
        Ok(self.files.iter().map(|file| file.path.clone()).collect())
    }
}

impl NewFile {
    fn create(path: PathBuf) -> Result<Self, Error> {
        let mut new = path.clone().into_os_string();
        new.push(".new");
        let new = PathBuf::from(new);
        let file = File::create(&new).map_err(Error::file(&new))?;
        Ok(Self { path, new, file })
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // There is none if it has its name.
        let _ = fs::remove_file(&self.new);
    }
}

#[cfg(test)]
mod tests {
    use artel_terminal::CommandOutcome;

    use super::*;

    /// The names and contents of the files in a directory.
    fn contents(dir: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let file =
            |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap());
        let mut files: Vec<_> = entries.map(file).collect();
        files.sort();
        files
    }

    #[test]
    fn files_that_did_not_all_come_leave_those_before() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), "before").unwrap();
        let before = contents(dir.path());
        let mut files = ReceivedFiles::new(dir.path().to_owned()).unwrap();
        files.write("config.json", b"after").unwrap();
        files.write("weights", b"half of").unwrap();
        assert_eq!(contents(dir.path()).len(), 3, "they are written as they come");
        drop(files);
        assert_eq!(contents(dir.path()), before);
    }

    #[test]
    fn files_get_their_names_when_all_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/here");
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("config.json"), "before").unwrap();
        // An earlier export was killed.
        fs::write(path.join("weights.new"), "what an earlier one has left").unwrap();
        let mut files = ReceivedFiles::new(path.clone()).unwrap();
        for (name, data) in [("config.json", "after"), ("weights", "1"), ("weights", "2")] {
            files.write(name, data.as_bytes()).unwrap();
        }
        assert_eq!(files.finish().unwrap(), ["config.json", "weights"].map(|name| path.join(name)));
        let after = [("config.json", "after"), ("weights", "12")];
        assert_eq!(contents(&path), after.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = ReceivedFiles::new(dir.path().to_owned()).unwrap();
        for name in ["", ".", "..", "../a", "/a", "a/b", "a/", "a/.."] {
            let refused = files.write(name, b"x").unwrap_err();
            assert!(matches!(refused, Error::UnsafeFileName(_)), "{name}: {refused}");
            assert_eq!(refused.outcome(), CommandOutcome::Failed);
        }
        assert_eq!(contents(dir.path()), []);
        assert!(
            matches!(files.finish().unwrap_err(), Error::IncompleteAnswer(_)),
            "a stream without files is no adapter"
        );
    }
}

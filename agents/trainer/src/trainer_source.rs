//! The source of the Python package.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use artel_files::whole_file;
use sha2::{Digest as _, Sha256};

/// The files of the package, by their paths in it, in order.
const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/source_files.rs"));
/// The list of packages with their versions and hashes: it decides which ones are installed.
pub(crate) const LOCK_FILE: &str = "requirements.lock";

/// The Python package of the trainer: its modules, and the list of the packages that they need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainerSource {
    files: BTreeMap<String, Cow<'static, str>>,
}

impl Default for TrainerSource {
    fn default() -> Self {
        Self::embedded()
    }
}

impl TrainerSource {
    /// The package that travels inside this binary.
    pub fn embedded() -> Self {
        let files = EMBEDDED.iter().map(|(path, text)| ((*path).to_owned(), Cow::Borrowed(*text)));
        Self { files: files.collect() }
    }

    /// Another package, for tests: texts by their paths, which are relative and go down only.
    ///
    /// # Errors
    /// A path is not of this form.
    pub fn of_files(files: impl IntoIterator<Item = (String, String)>) -> io::Result<Self> {
        let files: BTreeMap<_, _> = files.into_iter().map(|(path, text)| (path, Cow::Owned(text))).collect();
        let goes_down = |path: &str| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        match files.keys().find(|path| path.is_empty() || !goes_down(path)) {
            Some(path) => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{path}` is no path of a package"))),
            None => Ok(Self { files }),
        }
    }

    /// The hash of the list of packages.
    pub(crate) fn requirements_hash(&self) -> String {
        hash(self.files.iter().filter(|(path, _)| *path == LOCK_FILE))
    }

    /// The hash of all files.
    pub(crate) fn hash(&self) -> String {
        hash(self.files.iter())
    }

    /// Whether a directory holds these files. Others, such as those that Python compiles, may lie beside them.
    pub(crate) fn is_in(&self, dir: &Path) -> bool {
        self.files.iter().all(|(path, text)| fs::read(dir.join(path)).is_ok_and(|found| found == text.as_bytes()))
    }

    /// Makes a directory hold these files and no others. A process that is killed meanwhile leaves the directory as it was, or
    /// none.
    pub(crate) fn write_to(&self, dir: &Path) -> io::Result<()> {
        let [new, old] = ["new", "old"].map(|suffix| beside(dir, suffix));
        for path in [&new, &old] {
            remove_dir(path)?;
        }
        for (path, text) in &self.files {
            let path = new.join(path);
            fs::create_dir_all(path.parent().unwrap_or(&new))?;
            whole_file::write(&path, |file| io::Write::write_all(file, text.as_bytes()))?;
        }
        match fs::rename(dir, &old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::rename(&new, dir)?,
        }
        remove_dir(&old)
    }
}

fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Removes a directory, if it is there.
pub(crate) fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn hash<'f>(files: impl Iterator<Item = (&'f String, &'f Cow<'static, str>)>) -> String {
    let mut hash = Sha256::new();
    for (path, text) in files {
        for part in [path.as_bytes(), text.as_bytes()] {
            // With its length, so that no two lists of files give the same bytes.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(files: &[(&str, &str)]) -> TrainerSource {
        TrainerSource::of_files(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))).unwrap()
    }

    #[test]
    fn the_package_travels_with_its_lock_and_without_its_tests() {
        let files = TrainerSource::embedded().files;
        for path in [LOCK_FILE, "artel_trainer/__init__.py"] {
            assert!(files.contains_key(path), "{:?}", files.keys());
        }
        let known = |path: &String| path == LOCK_FILE || path.starts_with("artel_trainer/");
        assert!(files.keys().all(known), "{:?}", files.keys());
    }

    #[test]
    fn a_written_source_replaces_the_one_before_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("source");
        let [old, new] = [source(&[("a/old.py", "1"), ("b.py", "2")]), source(&[("b.py", "3")])];
        old.write_to(&dir).unwrap();
        assert!(old.is_in(&dir) && !new.is_in(&dir));
        fs::create_dir_all(beside(&dir, "new")).unwrap();
        fs::write(beside(&dir, "new").join("left.py"), "of a setup that was killed").unwrap();
        new.write_to(&dir).unwrap();
        assert!(new.is_in(&dir) && !old.is_in(&dir));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        assert!(!beside(&dir, "new").exists() && !beside(&dir, "old").exists());
    }

    #[test]
    fn the_hash_of_the_requirements_is_that_of_the_lock_and_not_of_the_modules() {
        let one = source(&[(LOCK_FILE, "1"), ("a.py", "1")]);
        let other_module = source(&[(LOCK_FILE, "1"), ("a.py", "2")]);
        let other_lock = source(&[(LOCK_FILE, "2"), ("a.py", "1")]);
        assert_eq!(one.requirements_hash(), other_module.requirements_hash());
        assert_ne!(one.hash(), other_module.hash());
        assert_ne!(one.requirements_hash(), other_lock.requirements_hash());
    }

    #[test]
    fn a_path_out_of_the_package_is_refused() {
        for path in ["", "../a.py", "/a.py", "a/../../b.py"] {
            assert!(TrainerSource::of_files([(path.to_owned(), String::new())]).is_err(), "{path}");
        }
    }
}

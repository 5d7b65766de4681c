//! Puts the files of a catalog into a directory, whole or not at all, and replaces nothing that it was not told to.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::starter::StarterFile;

/// The most backups of one file that are looked for.
const MAX_BACKUP_FILES: u32 = 1000;
/// The mode of a new file before the umask.
const NEW_FILE_MODE: u32 = 0o666;

/// The files of a catalog that are in the directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StarterComparison {
    /// Files that are there, as they would be written.
    pub same: Vec<PathBuf>,
    /// Files that are there with another content.
    pub different: Vec<PathBuf>,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// Its path.
    pub path: PathBuf,
    /// Where the file that it replaced is kept.
    pub backup: Option<PathBuf>,
}

/// Why a file is not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The system refuses.
    #[error("failed to {action} {path}: {cause}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// It was created in the meantime, or has another content and may not be replaced.
    #[error("{0} exists and is not replaced")]
    Exists(PathBuf),
    /// There is no free name for a backup.
    #[error("{0} has {MAX_BACKUP_FILES} backups: remove some of them")]
    TooManyBackups(PathBuf),
}

impl WriteError {
    fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::File { action, path, cause }
    }
}

/// Compares the files with a directory, which need not exist.
///
/// # Errors
/// A file is there and cannot be read.
pub fn compare(dir: &Path, files: &[StarterFile]) -> Result<StarterComparison, WriteError> {
    let mut comparison = StarterComparison::default();
    for file in files {
        let path = dir.join(file.name);
        match fs::read(&path) {
            Ok(bytes) if bytes == file.text.as_bytes() => comparison.same.push(path),
            Ok(_) => comparison.different.push(path),
            // It may be a broken link, which is there all the same.
            Err(_) if path.is_symlink() => comparison.different.push(path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(WriteError::file("read", &path)(e)),
        }
    }
    Ok(comparison)
}

/// Writes the files that are missing, and with `replace` also those that are different, each of which is kept under another
/// name. Files that are as they should be are not touched. Each file appears at once with its whole content.
///
/// # Errors
/// A file cannot be written, or is different and may not be replaced; what was written before it stays.
pub fn write_files(dir: &Path, files: &[StarterFile], replace: bool) -> Result<Vec<WrittenFile>, WriteError> {
    fs::create_dir_all(dir).map_err(WriteError::file("create", dir))?;
    let comparison = compare(dir, files)?;
    if let Some(path) = comparison.different.first().filter(|_| !replace) {
        return Err(WriteError::Exists(path.clone()));
    }
    let mut written = Vec::new();
    for file in files {
        let path = dir.join(file.name);
        if comparison.same.contains(&path) {
            continue;
        }
        let whole = write_beside(dir, &path, file)?;
        let backup = comparison.different.contains(&path).then(|| keep(&path)).transpose()?;
        whole.persist_noclobber(&path).map_err(|e| match e.error.kind() {
            io::ErrorKind::AlreadyExists => WriteError::Exists(path.clone()),
            _ => WriteError::file("write", &path)(e.error),
        })?;
        written.push(WrittenFile { path, backup });
    }
    Ok(written)
}

/// The whole content under a name that no catalog reads, in the same directory.
fn write_beside(dir: &Path, path: &Path, file: &StarterFile) -> Result<NamedTempFile, WriteError> {
    let failed = || WriteError::file("write", path);
    // As any program creates a file, the umask applies: a daemon that runs as another user may read the catalog.
    let mode = fs::Permissions::from_mode(NEW_FILE_MODE);
    let mut whole = tempfile::Builder::new().prefix(".init-").permissions(mode).tempfile_in(dir).map_err(failed())?;
    if let Ok(replaced) = fs::metadata(path) {
        whole.as_file().set_permissions(replaced.permissions()).map_err(failed())?;
    }
    whole.write_all(file.text.as_bytes()).map_err(failed())?;
    whole.as_file().sync_all().map_err(failed())?;
    Ok(whole)
}

/// Renames a file to the first free one of `NAME.bak`, `NAME.bak2` and so on, which no catalog reads.
fn keep(path: &Path) -> Result<PathBuf, WriteError> {
    let backup = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(if number == 1 { ".bak".to_owned() } else { format!(".bak{number}") });
        PathBuf::from(name)
    };
    let is_free = |path: &PathBuf| !path.exists() && !path.is_symlink();
    let backup = (1..=MAX_BACKUP_FILES).map(backup).find(is_free);
    let backup = backup.ok_or_else(|| WriteError::TooManyBackups(path.to_owned()))?;
    fs::rename(path, &backup).map_err(WriteError::file("keep", path))?;
    Ok(backup)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> Vec<StarterFile> {
        ["a.yaml", "b.yaml"].map(|name| StarterFile { name, text: format!("{text} {name}") }).to_vec()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_second_run_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = dir.path().join("config/catalog");
        assert_eq!(write_files(&catalog, &files("one"), false).unwrap().len(), 2);
        assert_eq!(names(&catalog), ["a.yaml", "b.yaml"]);
        assert!(write_files(&catalog, &files("one"), false).unwrap().is_empty());
        fs::remove_file(catalog.join("a.yaml")).unwrap();
        let again = write_files(&catalog, &files("one"), false).unwrap();
        assert_eq!(again, [WrittenFile { path: catalog.join("a.yaml"), backup: None }]);
    }

    #[test]
    fn nothing_is_written_if_one_file_is_different() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b.yaml"), "mine").unwrap();
        let error = write_files(dir.path(), &files("one"), false).unwrap_err();
        assert!(matches!(&error, WriteError::Exists(path) if path.ends_with("b.yaml")), "{error}");
        assert_eq!(names(dir.path()), ["b.yaml"]);
        let comparison = compare(dir.path(), &files("one")).unwrap();
        assert_eq!(comparison.different, [dir.path().join("b.yaml")]);
        assert!(comparison.same.is_empty());
    }

    #[test]
    fn a_file_can_be_read_as_any_other_and_a_replaced_one_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        fs::write(dir.path().join("any"), "").unwrap();
        write_files(dir.path(), &files("one"), false).unwrap();
        assert_eq!([mode("a.yaml"), mode("b.yaml")], [mode("any"); 2]);
        fs::set_permissions(dir.path().join("a.yaml"), fs::Permissions::from_mode(0o600)).unwrap();
        write_files(dir.path(), &files("two"), true).unwrap();
        assert_eq!([mode("a.yaml"), mode("b.yaml")], [0o600, mode("any")]);
    }

    #[test]
    fn a_replaced_file_is_kept_each_time() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["one", "two", "three"] {
            write_files(dir.path(), &files(text), true).unwrap();
        }
        assert_eq!(names(dir.path()), ["a.yaml", "a.yaml.bak", "a.yaml.bak2", "b.yaml", "b.yaml.bak", "b.yaml.bak2"]);
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(
            [read("a.yaml"), read("a.yaml.bak"), read("a.yaml.bak2")],
            ["three a.yaml", "one a.yaml", "two a.yaml"]
        );
    }

    #[test]
    fn a_broken_link_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), dir.path().join("a.yaml")).unwrap();
        assert!(write_files(dir.path(), &files("one"), false).is_err());
        assert!(!dir.path().join("elsewhere").exists());
    }
}

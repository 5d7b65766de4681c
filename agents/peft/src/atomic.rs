//! Files and directories that are there whole or not at all: written beside their place, synced, and renamed.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::Builder;

use crate::error::ConvertError;

/// The names of what is being written begin with it.
const PARTIAL_PREFIX: &str = ".artel-adapter-";
/// As of any file or directory that is created: the process's mask takes from it.
const FILE_MODE: u32 = 0o666;
const DIRECTORY_MODE: u32 = 0o777;

/// Writes a file; one that is there is replaced.
pub(crate) fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> Result<(), ConvertError>,
) -> Result<(), ConvertError> {
    let failed = ConvertError::write(path);
    let dir = directory_of(path);
    let partial = Builder::new()
        .prefix(PARTIAL_PREFIX)
        .permissions(Permissions::from_mode(FILE_MODE))
        .tempfile_in(dir)
        .map_err(&failed)?;
    fill(partial.as_file(), path, write)?;
    partial.persist(path).map_err(|error| failed(error.error))?;
    sync_directory(dir).map_err(failed)
}

/// Writes a directory, which must not exist; `write` is given a directory that becomes it.
pub(crate) fn write_directory(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), ConvertError>,
) -> Result<(), ConvertError> {
    let failed = ConvertError::write(path);
    if fs::symlink_metadata(path).is_ok() {
        return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, "it exists already, and is not overwritten")));
    }
    let dir = directory_of(path);
    let partial = Builder::new()
        .prefix(PARTIAL_PREFIX)
        .permissions(Permissions::from_mode(DIRECTORY_MODE))
        .tempdir_in(dir)
        .map_err(&failed)?;
    write(partial.path())?;
    sync_directory(partial.path()).and_then(|()| fs::rename(partial.path(), path)).map_err(&failed)?;
    // It has another name now: there is nothing to remove.
    let _ = partial.keep();
    sync_directory(dir).map_err(failed)
}

/// Writes a file in a directory that has its name only when it is whole.
pub(crate) fn write_part(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> Result<(), ConvertError>,
) -> Result<(), ConvertError> {
    let file = File::create_new(path).map_err(ConvertError::write(path))?;
    fill(&file, path, write)
}

fn fill(
    file: &File,
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> Result<(), ConvertError>,
) -> Result<(), ConvertError> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    write(&mut out)?;
    out.flush().and_then(|()| file.sync_all()).map_err(ConvertError::write(path))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn failure() -> ConvertError {
        ConvertError::damaged(Path::new("x"), "a failure in between")
    }

    #[test]
    fn a_failure_in_between_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gguf");
        write_file(&path, |out| out.write_all(b"first").map_err(ConvertError::write(&path))).unwrap();
        let half = write_file(&path, |out| {
            out.write_all(b"half of").unwrap();
            out.flush().unwrap();
            Err(failure())
        });
        assert!(half.is_err());
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"first".to_vec(), vec!["a.gguf".to_owned()]));
        write_file(&path, |out| out.write_all(b"second").map_err(ConvertError::write(&path))).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
    }

    #[test]
    fn a_directory_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peft");
        let part = |name: &'static str| {
            move |dir: &Path| write_part(&dir.join(name), |out| out.write_all(b"x").map_err(ConvertError::write(dir)))
        };
        assert!(write_directory(&path, |dir| part("a")(dir).and(Err(failure()))).is_err());
        assert_eq!(names(dir.path()), [""; 0]);
        write_directory(&path, part("a")).unwrap();
        assert_eq!((names(dir.path()), names(&path)), (vec!["peft".to_owned()], vec!["a".to_owned()]));
        let again = write_directory(&path, part("b")).unwrap_err().to_string();
        assert!(again.contains("exists already, and is not overwritten"), "{again}");
        assert_eq!(names(&path), ["a"]);
    }

    #[test]
    fn permissions_are_those_of_any_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, written) = (dir.path().join("plain"), dir.path().join("written"));
        fs::write(&plain, "x").unwrap();
        write_file(&written, |_| Ok(())).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&plain), mode(&written));
        fs::create_dir(dir.path().join("plain-dir")).unwrap();
        write_directory(&dir.path().join("dir"), |_| Ok(())).unwrap();
        assert_eq!(mode(&dir.path().join("plain-dir")), mode(&dir.path().join("dir")));
    }
}

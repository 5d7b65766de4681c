//! Files that are there as a whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

/// Writes a file under a temporary name, which ends with `.new`, forces it to the disk, and renames it.
///
/// # Errors
/// The system refuses, or `content` fails: then the file is as it was before.
pub fn write(path: &Path, content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    let written = write_new(new, content).and_then(|()| fs::rename(new, path));
    if written.is_err() {
        // On a full disk the half that was written would stay.
        let _ = fs::remove_file(new);
        return written;
    }
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => crate::sync_dir(dir),
        _ => Ok(()),
    }
}

fn write_new(path: &Path, content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    content(&mut file)?;
    file.flush()?;
    file.get_ref().sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_could_not_be_written_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, |file| file.write_all(b"first")).unwrap();
        let failed = write(&path, |file| file.write_all(b"second").and(Err(io::Error::other("no"))));
        assert_eq!(failed.unwrap_err().to_string(), "no");
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

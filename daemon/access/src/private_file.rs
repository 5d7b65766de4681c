//! Small files that only their user may read.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use artel_model::open_regular_file;
use nix::unistd::geteuid;
use zeroize::Zeroizing;

/// For its user alone.
const PRIVATE_MODE: u32 = 0o600;
/// The bits of a mode that let others in.
const OTHERS_MODE: u32 = 0o077;
/// Those of them that let others write.
const OTHERS_WRITE_MODE: u32 = 0o022;

/// What was read.
pub(crate) struct PrivateText {
    /// `None` if it is not UTF-8, or has more bytes than allowed.
    pub(crate) text: Option<Zeroizing<String>>,
    /// Whether others could read or write it.
    pub(crate) is_exposed: bool,
    /// Whether others could write it.
    pub(crate) is_foreign: bool,
}

/// Reads a file of at most so many bytes; `None` if there is none.
pub(crate) fn read(path: &Path, max_bytes: u64) -> io::Result<Option<PrivateText>> {
    let file = match open_regular_file(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = file.metadata()?;
    let is_of_other = found.uid() != geteuid().as_raw();
    let is_exposed = found.mode() & OTHERS_MODE != 0 || is_of_other;
    let is_foreign = found.mode() & OTHERS_WRITE_MODE != 0 || is_of_other;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    let fits = bytes.len() as u64 <= max_bytes;
    let text = std::str::from_utf8(&bytes).ok().filter(|_| fits).map(|text| Zeroizing::new(text.to_owned()));
    Ok(Some(PrivateText { text, is_exposed, is_foreign }))
}

/// Replaces a file in one step; it is on disk when this returns.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    // Left by a write that was cut off, perhaps with another mode.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE_MODE).open(&new)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

/// Takes away what others may do with a file.
pub(crate) fn close_to_others(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(PRIVATE_MODE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        assert!(read(&path, 10).unwrap().is_none());
        fs::write(dir.path().join("tokens.new"), "cut off").unwrap();
        write(&path, "one").unwrap();
        write(&path, "two").unwrap();
        let found = read(&path, 3).unwrap().unwrap();
        assert_eq!((found.text.as_deref().map(String::as_str), found.is_exposed), (Some("two"), false));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(read(&path, 2).unwrap().unwrap().text.is_none(), "it is too long");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let open = read(&path, 3).unwrap().unwrap();
        assert!(open.is_exposed && !open.is_foreign);
        fs::set_permissions(&path, Permissions::from_mode(0o620)).unwrap();
        assert!(read(&path, 3).unwrap().unwrap().is_foreign);
        close_to_others(&path).unwrap();
        assert!(!read(&path, 3).unwrap().unwrap().is_exposed);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }
}

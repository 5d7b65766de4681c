//! Opens files by names that stand in documents, settings and flags.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Opens a regular file for reading; links are followed.
///
/// Anything else is refused: to open a FIFO blocks the thread until another program writes into it, so that not even the exit of
/// the program is reached, and to open a device may have any effect. The type is checked before the file is opened, and again
/// of what was opened, since the name may lead to another file by then.
///
/// # Errors
/// It does not exist, cannot be opened, or is not a regular file; the last has the kind [`io::ErrorKind::InvalidInput`].
pub fn open_regular_file(path: &Path) -> io::Result<File> {
    require_regular(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    require_regular(&file.metadata()?)?;
    Ok(file)
}

fn require_regular(metadata: &fs::Metadata) -> io::Result<()> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(open_regular_file(&own.join("Cargo.toml")).is_ok());
        assert_eq!(open_regular_file(&own.join("nowhere")).unwrap_err().kind(), io::ErrorKind::NotFound);
        for other in [own, Path::new("/dev/zero")] {
            assert_eq!(
                open_regular_file(other).unwrap_err().kind(),
                io::ErrorKind::InvalidInput,
                "{}",
                other.display()
            );
        }
    }
}

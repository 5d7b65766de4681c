//! A file that is not whole yet: `NAME.part`, locked, with what the hub said of it in `NAME.part.etag`.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What tells whether more bytes would be of the same file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marks {
    /// What the hub says of the file; for large ones, their SHA-256.
    pub(super) linked: Option<String>,
    /// What the server says that gave the bytes.
    pub(super) etag: Option<String>,
}

/// A file that is not whole yet. It is nobody else's while this lives.
pub(super) struct Part {
    /// Where it belongs.
    whole: PathBuf,
    path: PathBuf,
    file: File,
    len: u64,
    hash: Sha256,
    marks: Marks,
}

impl Part {
    /// Takes it, waiting with `wait` while another process has it. None: that one has made it whole.
    pub(super) fn take(whole: &Path, wait: impl Fn() -> Result<(), String>) -> Result<Option<Self>, String> {
        let path = beside(whole, ".part");
        let failed = |e: io::Error| format!("failed to write {}: {e}", path.display());
        if let Some(dir) = whole.parent() {
            fs::create_dir_all(dir).map_err(|e| format!("failed to make {}: {e}", dir.display()))?;
        }
        loop {
            let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(failed)?;
            let locked = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(e)) => return Err(format!("failed to lock {}: {e}", path.display())),
            };
            // Whoever had it may have moved or removed it meanwhile.
            let same = |other: fs::Metadata| file.metadata().is_ok_and(|own| own.ino() == other.ino());
            let is_it = locked && fs::metadata(&path).is_ok_and(same);
            if whole.exists() {
                if is_it {
                    // Ours, and empty: opened after the other one was moved away.
                    let _ = fs::remove_file(&path);
                    let _ = fs::remove_file(beside(whole, ".part.etag"));
                }
                return Ok(None);
            }
            if is_it {
                return Self::read(whole, path.clone(), file).map(Some).map_err(failed);
            }
            wait()?;
        }
    }

    fn read(whole: &Path, path: PathBuf, file: File) -> io::Result<Self> {
        let marks = fs::read(beside(whole, ".part.etag")).ok();
        let marks = marks.and_then(|text| serde_json::from_slice(&text).ok());
        let mut part =
            Self { whole: whole.to_owned(), path, file, len: 0, hash: Sha256::new(), marks: Marks::default() };
        match marks {
            Some(marks) => {
                part.marks = marks;
                part.rehash()?;
            }
            None => part.clear()?,
        }
        Ok(part)
    }

    /// Hashes what is there already.
    fn rehash(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 20];
        self.file.seek(SeekFrom::Start(0))?;
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok(()),
                n => {
                    self.hash.update(&buffer[..n]);
                    self.len += n as u64;
                }
            }
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Empties it.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        (self.len, self.hash, self.marks) = (0, Sha256::new(), Marks::default());
        Ok(())
    }

    /// What follows is of the file with these marks.
    pub(super) fn mark(&mut self, marks: Marks) -> io::Result<()> {
        if self.marks != marks {
            fs::write(beside(&self.whole, ".part.etag"), serde_json::to_vec(&marks)?)?;
            self.marks = marks;
        }
        Ok(())
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// The SHA-256 of what is there.
    pub(super) fn sha256(&self) -> String {
        self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether it begins like this.
    pub(super) fn begins_with(&self, magic: &[u8; 4]) -> bool {
        let mut beginning = [0; 4];
        self.file.read_exact_at(&mut beginning, 0).is_ok() && beginning == *magic
    }

    /// Removes it.
    pub(super) fn discard(self) {
        // What cannot be removed is found to be wrong again.
        let _ = fs::remove_file(beside(&self.whole, ".part.etag"));
        let _ = fs::remove_file(&self.path);
    }

    /// It is whole: moves it to its place.
    pub(super) fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, &self.whole)?;
        // It says nothing of any use now.
        let _ = fs::remove_file(beside(&self.whole, ".part.etag"));
        match self.whole.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}

fn beside(whole: &Path, suffix: &str) -> PathBuf {
    let mut name = whole.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

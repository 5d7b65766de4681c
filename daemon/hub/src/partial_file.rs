//! A partially downloaded file: `NAME.part`, locked, with its validators in `NAME.part.etag`.

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use artel_model::open_regular_file;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::lock_file::try_lock;

/// HTTP validators: whether further bytes belong to the same version of the file. Stored as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileValidators {
    /// The ETag of the hub; for large files, their SHA-256.
    pub(crate) linked: Option<String>,
    /// The ETag of the server that sent the bytes.
    pub(crate) etag: Option<String>,
}

/// A partially downloaded file, locked while this value exists.
pub(crate) struct PartialFile {
    /// The path of the complete file.
    final_path: PathBuf,
    path: PathBuf,
    file: File,
    len: u64,
    hash: Sha256,
    validators: FileValidators,
}

impl PartialFile {
    /// Opens and locks it; calls `wait` repeatedly while another process holds the lock. None: the other process has completed
    /// the file.
    pub(crate) fn lock(final_path: &Path, wait: impl Fn() -> Result<(), Error>) -> Result<Option<Self>, Error> {
        let path = beside(final_path, ".part");
        let failed = |e: io::Error| Error::file("write", &path, e);
        if let Some(dir) = final_path.parent() {
            fs::create_dir_all(dir).map_err(|e| Error::file("create", dir, e))?;
        }
        loop {
            let locked = try_lock(&path)?;
            if final_path.exists() {
                if locked.is_some() {
                    // Our file is empty: it was created after the other one was renamed.
                    let _ = fs::remove_file(&path);
                    let _ = fs::remove_file(beside(final_path, ".part.etag"));
                }
                return Ok(None);
            }
            if let Some(file) = locked {
                return Self::open(final_path, path.clone(), file).map(Some).map_err(failed);
            }
            wait()?;
        }
    }

    fn open(final_path: &Path, path: PathBuf, file: File) -> io::Result<Self> {
        let validators = open_regular_file(&beside(final_path, ".part.etag")).ok();
        let validators = validators.and_then(|file| serde_json::from_reader(BufReader::new(file)).ok());
        let mut part = Self {
            final_path: final_path.to_owned(),
            path,
            file,
            len: 0,
            hash: Sha256::new(),
            validators: FileValidators::default(),
        };
        match validators {
            Some(validators) => {
                part.validators = validators;
                part.rehash()?;
            }
            None => part.clear()?,
        }
        Ok(part)
    }

    /// Hashes the existing bytes.
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

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn validators(&self) -> &FileValidators {
        &self.validators
    }

    /// Truncates it to zero bytes.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        (self.len, self.hash, self.validators) = (0, Sha256::new(), FileValidators::default());
        Ok(())
    }

    /// Stores the validators of the bytes that follow.
    pub(crate) fn set_validators(&mut self, validators: FileValidators) -> io::Result<()> {
        if self.validators != validators {
            fs::write(beside(&self.final_path, ".part.etag"), serde_json::to_vec(&validators)?)?;
            self.validators = validators;
        }
        Ok(())
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// The SHA-256 of the existing bytes.
    pub(crate) fn sha256(&self) -> String {
        self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether it starts with these bytes.
    pub(crate) fn starts_with(&self, magic: &[u8; 4]) -> bool {
        let mut head = [0; 4];
        self.file.read_exact_at(&mut head, 0).is_ok() && head == *magic
    }

    /// Removes it.
    pub(crate) fn discard(self) {
        // Best effort: a remaining file fails verification again.
        let _ = fs::remove_file(beside(&self.final_path, ".part.etag"));
        let _ = fs::remove_file(&self.path);
    }

    /// Renames the complete file to its final path.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, &self.final_path)?;
        // No longer needed.
        let _ = fs::remove_file(beside(&self.final_path, ".part.etag"));
        match self.final_path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// Bytes of a file that are here already, whether another process writes them or none.
pub(crate) fn existing_bytes(final_path: &Path) -> u64 {
    let size = |path: &Path| fs::metadata(path).ok().map(|file| file.len());
    size(final_path).or_else(|| size(&beside(final_path, ".part"))).unwrap_or(0)
}

/// The path of a file that belongs to another one.
pub(crate) fn beside(whole: &Path, suffix: &str) -> PathBuf {
    let mut name = whole.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

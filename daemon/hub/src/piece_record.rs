//! Which commit the pieces of an incomplete model are from: `NAME-00001-of-00005.gguf.commit`, locked while they are fetched.
//!
//! A revision such as `main` may mean another commit when the rest is fetched, and the pieces of two versions are no model. The file is
//! removed with the last piece.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use artel_model::open_regular_file;

use crate::commit::RepoCommit;
use crate::error::Error;
use crate::lock_file::try_lock;
use crate::partial_file::beside;

/// More than a commit takes.
const MAX_RECORD_BYTES: u64 = 256;

/// The record of an incomplete model, locked while this value exists.
pub(crate) struct PieceRecord {
    path: PathBuf,
    file: File,
}

impl PieceRecord {
    /// The commit that is recorded, whether it is locked or not.
    pub(crate) fn read(first_piece: &Path) -> Option<RepoCommit> {
        let mut text = String::new();
        open_regular_file(&path(first_piece)).ok()?.take(MAX_RECORD_BYTES).read_to_string(&mut text).ok()?;
        RepoCommit::parse(&text)
    }

    /// Opens and locks it; calls `wait` repeatedly while another process fetches the same model.
    pub(crate) fn lock(first_piece: &Path, wait: impl Fn() -> Result<(), Error>) -> Result<Self, Error> {
        let path = path(first_piece);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(|e| Error::file("create", dir, e))?;
        }
        loop {
            if let Some(file) = try_lock(&path)? {
                return Ok(Self { path, file });
            }
            wait()?;
        }
    }

    /// Records a commit, or that none is known.
    pub(crate) fn set(&mut self, commit: Option<&RepoCommit>) -> Result<(), Error> {
        let text = commit.map_or("", RepoCommit::as_str);
        self.write(text).map_err(|e| Error::file("write", &self.path, e))
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())?;
        // Before any piece, so that none outlives what is said of it.
        self.file.sync_all()
    }

    /// Removes it: the model is complete.
    pub(crate) fn discard(self) {
        // Best effort: the record of a model without missing pieces is not read.
        let _ = fs::remove_file(&self.path);
    }
}

fn path(first_piece: &Path) -> PathBuf {
    beside(first_piece, ".commit")
}

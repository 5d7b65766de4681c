//! Hashes of files.

use std::io::{self, Read, Seek};
use std::path::Path;

use artel_model::open_regular_file;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Compares a file's SHA-256 with the expected one, in hexadecimal.
pub fn verify_sha256(path: &Path, expected: &str) -> Result<(), Error> {
    let read = |source| Error::of_read(path, source);
    let mut file = open_regular_file(path).map_err(read)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(read)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let actual: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if actual.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(Error::HashMismatch { path: path.to_owned(), expected: expected.to_owned(), actual })
}

/// A hash of a file's size, its head and 64 evenly spaced samples: enough to tell models apart in milliseconds, where a hash of
/// the whole file would take minutes.
pub fn sampled_hash(path: &Path) -> Result<[u8; 32], Error> {
    const HEAD_BYTES: u64 = 1 << 20;
    const SAMPLE_BYTES: u64 = 1 << 16;
    const SAMPLES: u64 = 64;
    let read = |source| Error::of_read(path, source);
    let mut file = open_regular_file(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let mut hash = Sha256::new();
    hash.update(size.to_le_bytes());
    let mut add = |from: u64, length: u64| -> io::Result<()> {
        let mut bytes = Vec::new();
        file.seek(io::SeekFrom::Start(from))?;
        file.by_ref().take(length).read_to_end(&mut bytes)?;
        hash.update(&bytes);
        Ok(())
    };
    add(0, HEAD_BYTES).map_err(read)?;
    let step = size / SAMPLES;
    (1..SAMPLES).try_for_each(|n| add(n * step, SAMPLE_BYTES.min(step))).map_err(read)?;
    add(size.saturating_sub(SAMPLE_BYTES), SAMPLE_BYTES).map_err(read)?;
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_for_a_hash_mismatch_names_both_hashes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        std::fs::write(&path, b"abc").unwrap();
        verify_sha256(&path, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        let error = verify_sha256(&path, "00").unwrap_err().to_string();
        assert!(error.contains("ba7816bf") && error.contains("states 00"), "{error}");
    }

    #[test]
    fn a_missing_file_is_told_from_one_that_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("m.gguf");
        assert!(matches!(verify_sha256(&nowhere, "00"), Err(Error::Missing { .. })));
        assert!(matches!(sampled_hash(&nowhere), Err(Error::Missing { .. })));
        assert!(matches!(verify_sha256(dir.path(), "00"), Err(Error::Read { .. })));
    }
}
